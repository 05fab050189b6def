"""Weighted sums of tensors in one pass over memory.

Reads every member once and writes the result once, without temporary tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from evomerge.merge.kernels import portable
from evomerge.merge.kernels.storage import (
    BLOCK,
    Flat,
    addresses,
    elements_at,
    flat,
    operands,
    value_of,
    write_block,
)
from evomerge.merge.kernels.threads import over_ranges

if TYPE_CHECKING:
    import torch


def weighted_sum(
    tensors: Sequence[torch.Tensor], coefficients: NDArray[np.float64], out: torch.Tensor
) -> None:
    """Write Σ c·t into `out`: products and sums in float32, in the order given, rounded once.

    tensors: one or more of one shape and any floating dtype, on the device of `out`. coefficients:
    (members,), or (rows, members) where rows is the first dimension of the tensors. A member whose
    coefficients are all zero is not read. out: contiguous, of the tensors' shape.
    """
    by_row = np.atleast_2d(np.asarray(coefficients, dtype=np.float32))
    read = [member for member in range(len(tensors)) if by_row[:, member].any()]
    if out.numel() == 0:
        return
    if not read:
        out.zero_()
        return
    chosen = [tensors[member] for member in read]
    factors = np.ascontiguousarray(by_row[:, read])
    if not portable.runs_here(out):
        portable.weighted_sum(chosen, factors, out)
        return
    arrays = operands(chosen)
    others = addresses(arrays[1:])
    target = flat(out)
    rows = factors.shape[0]
    width = out.numel() // rows

    def work(start: int, stop: int) -> None:
        _weighted_sum(arrays[0], others, factors, width, target, start, stop)

    over_ranges(work, out.numel(), unit=BLOCK if rows == 1 else width)


@njit(nogil=True, cache=True)
def _weighted_sum(
    first: Flat,
    others: NDArray[np.int64],
    factors: NDArray[np.float32],
    width: int,
    out: Flat,
    start: int,
    stop: int,
) -> None:
    block = np.empty(BLOCK, np.float32)
    position = start
    while position < stop:
        row = position // width
        end = min(position + BLOCK, stop, (row + 1) * width)
        _scale(first[position:end], factors[row, 0], block)
        for member in range(len(others)):
            part = elements_at(others[member], first, position, end)
            _add_scaled(part, factors[row, member + 1], block)
        write_block(block, out[position:end])
        position = end


@njit(nogil=True, cache=True)
def _scale(part: Flat, factor: np.float32, block: NDArray[np.float32]) -> None:
    for j in range(part.size):
        block[j] = value_of(part[j]) * factor


@njit(nogil=True, cache=True)
def _add_scaled(part: Flat, factor: np.float32, block: NDArray[np.float32]) -> None:
    for j in range(part.size):
        block[j] += value_of(part[j]) * factor
