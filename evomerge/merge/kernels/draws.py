"""Sums of magnitudes over what a random mask keeps, for every density at once.

The draw of an element never changes in a search; only the limit that it must stay below changes. So
the magnitudes are added up once, by the upper bits of their draws, and the sum for any density is
then looked up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from evomerge.merge.kernels import portable
from evomerge.merge.kernels.masks import DRAW_BITS, LIMIT_BITS, draw_limit, draw_of
from evomerge.merge.kernels.storage import BLOCK, Flat, operands, value_of

if TYPE_CHECKING:
    import torch

_BINS = 2**LIMIT_BITS


def sums_by_draw(base: torch.Tensor, expert: torch.Tensor, key: int) -> NDArray[np.float64]:
    """Σ |θ - base| over the elements with a draw below each limit, (65537,); the last is over all.

    One thread adds the elements in order, so that the sums are always the same.
    """
    if portable.runs_here(base):
        ours, theirs = operands([base, expert])
        sums = np.zeros(_BINS + 1)
        _add_by_draw(ours, theirs, np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32), sums)
    else:
        sums = portable.sums_by_draw(base, expert, key)
    total: NDArray[np.float64] = np.cumsum(sums)
    return total


def sum_below(sums: NDArray[np.float64], probability: float) -> float:
    """The sum over what a mask of this probability keeps."""
    return float(sums[draw_limit(probability) >> (DRAW_BITS - LIMIT_BITS)])


@njit(nogil=True, cache=True)
def _add_by_draw(
    base: Flat, expert: Flat, k0: np.uint32, k1: np.uint32, sums: NDArray[np.float64]
) -> None:
    """sums[1 + upper bits of the draw] += |θ - base|."""
    bins = np.empty(BLOCK, np.uint32)
    terms = np.empty(BLOCK, np.float32)
    for start in range(0, base.size, BLOCK):
        count = min(BLOCK, base.size - start)
        low = (np.int64(k0) + (start >> 32) * 0x9E3779B9) & 0xFFFFFFFF
        first = np.uint32(start & 0xFFFFFFFF)
        _read_draws(np.uint32(low), k1, first, count, bins)
        ours, theirs = base[start : start + count], expert[start : start + count]
        for j in range(count):
            terms[j] = abs(value_of(theirs[j]) - value_of(ours[j]))
        for j in range(count):
            sums[1 + bins[j]] += terms[j]


@njit(nogil=True, cache=True)
def _read_draws(
    k0: np.uint32, k1: np.uint32, first: np.uint32, count: int, bins: NDArray[np.uint32]
) -> None:
    for j in range(count):
        bins[j] = draw_of(np.uint32(first + np.uint32(j)), k0, k1) >> np.uint32(16)
