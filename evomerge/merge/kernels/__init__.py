"""Compiled passes over memory that merge methods are built from; they use all CPU threads."""

from evomerge.merge.kernels.averaging import weighted_sum
from evomerge.merge.kernels.draws import TABLE_BYTES, exact_sums, sum_below, sums_by_draw
from evomerge.merge.kernels.inner_products import gram, row_gram
from evomerge.merge.kernels.magnitudes import (
    Counts,
    count_magnitudes,
    low_bits_in_order,
    magnitude_at,
    magnitudes_at,
    row_ranks,
)
from evomerge.merge.kernels.masks import KEEP_ALL, KEEP_BAND, KEEP_RANDOM, KEEP_RANKED, Mask
from evomerge.merge.kernels.portable import runs_here, weighted_columns
from evomerge.merge.kernels.task_vectors import absolute_sums, combine_task_vectors, rescaled
from evomerge.merge.kernels.threads import blockwise

__all__ = [
    "KEEP_ALL",
    "KEEP_BAND",
    "KEEP_RANDOM",
    "KEEP_RANKED",
    "TABLE_BYTES",
    "Counts",
    "Mask",
    "absolute_sums",
    "blockwise",
    "combine_task_vectors",
    "count_magnitudes",
    "exact_sums",
    "gram",
    "low_bits_in_order",
    "magnitude_at",
    "magnitudes_at",
    "rescaled",
    "row_gram",
    "row_ranks",
    "runs_here",
    "sum_below",
    "sums_by_draw",
    "weighted_columns",
    "weighted_sum",
]
