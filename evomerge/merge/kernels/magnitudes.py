"""Order statistics of |θ - base|: the k-th largest magnitude, exactly, without sorting each time.

A magnitude is a float32 without its sign: 31 bits that order as the numbers do. Its upper 16 bits
are its bin. The counts of all bins are small and never change, so the bin of the k-th largest is
looked up; within the bin the lower 15 bits decide. If a table of these bits is kept (2 bytes an
element), they are looked up; otherwise one pass counts them in the tensors, as a single merge does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from evomerge.deferred import torch
from evomerge.merge.kernels import portable
from evomerge.merge.kernels.storage import BLOCK, Flat, operands, value_of
from evomerge.merge.kernels.threads import over_ranges

_LOW_BITS = 15
_BINS = 2**16

Counts = NDArray[np.int64]
"""(2, bins): the bins that are not empty, ascending, and the number of elements in earlier bins."""


def count_magnitudes(base: torch.Tensor, expert: torch.Tensor) -> Counts:
    """How the magnitudes of a task vector fall into bins."""
    if not portable.runs_here(base):
        bins_of = portable.magnitude_bits(base, expert) >> _LOW_BITS
        return _counts(torch.bincount(bins_of, minlength=_BINS).cpu().numpy())
    ours, theirs = operands([base, expert])
    count = ours.size
    parts: list[NDArray[np.int64]] = []

    def work(start: int, stop: int) -> None:
        tally = np.zeros(_BINS, dtype=np.int64)
        _tally(ours, theirs, start, stop, tally)
        parts.append(tally)

    over_ranges(work, count, unit=BLOCK)
    return _counts(np.add.reduce(parts))


def _counts(tally: NDArray[np.int64]) -> Counts:
    bins = np.flatnonzero(tally)
    before = np.cumsum(tally[bins]) - tally[bins]
    return np.stack([bins, before])


def low_bits_in_order(base: torch.Tensor, expert: torch.Tensor) -> NDArray[np.uint16]:
    """The lower bits of every magnitude in ascending order of the magnitudes; (elements,)."""
    if not portable.runs_here(base):
        low = portable.magnitude_bits(base, expert).sort().values & (2**_LOW_BITS - 1)
        table: NDArray[np.uint16] = low.cpu().numpy().astype(np.uint16)
        return table
    ours, theirs = operands([base, expert])
    patterns = np.empty(ours.size, dtype=np.uint32)

    def work(start: int, stop: int) -> None:
        _patterns(ours, theirs, start, stop, patterns)

    over_ranges(work, ours.size, unit=BLOCK)
    patterns.sort()
    patterns &= np.uint32(2**_LOW_BITS - 1)
    return patterns.astype(np.uint16)


def magnitude_at(
    place: int,
    counts: Counts,
    low_bits: NDArray[np.uint16] | None,
    base: torch.Tensor,
    expert: torch.Tensor,
) -> float:
    """The magnitude at `place` in ascending order, 0 the smallest. Exact, a float32's value."""
    column = int(np.searchsorted(counts[1], place, side="right")) - 1
    bin_number, before = int(counts[0, column]), int(counts[1, column])
    if low_bits is not None:
        low = int(low_bits[place])
    else:
        up_to = np.cumsum(_count_low_bits(bin_number, base, expert))
        low = int(np.searchsorted(up_to, place - before, side="right"))
    return float(np.uint32(bin_number << _LOW_BITS | low).view(np.float32))


def magnitudes_at(
    places: Sequence[int], counts: Counts, base: torch.Tensor, expert: torch.Tensor
) -> torch.Tensor:
    """As `magnitude_at` without a table, on a device that is no CPU; float32, (places,), there."""
    ends = np.append(counts[1, 1:], base.numel())
    found = []
    for place in places:
        column = int(np.searchsorted(counts[1], place, side="right")) - 1
        before = int(counts[1, column])
        found.append(
            portable.magnitude_inside(
                base,
                expert,
                bin_number=int(counts[0, column]),
                count=int(ends[column]) - before,
                place=place - before,
                low_bits=_LOW_BITS,
            )
        )
    return torch.stack(found)


def row_ranks(base: torch.Tensor, expert: torch.Tensor, width: int) -> NDArray[np.uint32]:
    """Rank of each magnitude among the `width` elements of its row, 0 the smallest; (elements,).

    Among equal magnitudes, the first in the row ranks lower.
    """
    rows = max(1, 2**20 // width)
    ours, theirs = base.reshape(-1, width), expert.reshape(-1, width)
    ranks = np.empty((ours.shape[0], width), dtype=np.uint16 if width <= 2**16 else np.uint32)
    for start in range(0, ours.shape[0], rows):
        part = slice(start, start + rows)
        magnitudes = (theirs[part].float() - ours[part].float()).abs().cpu().numpy()
        order = np.argsort(magnitudes, axis=1, kind="stable")
        places = np.broadcast_to(np.arange(width, dtype=ranks.dtype), order.shape)
        np.put_along_axis(ranks[part], order, places, axis=1)
    return ranks.reshape(-1)


def _count_low_bits(bin_number: int, base: torch.Tensor, expert: torch.Tensor) -> NDArray[np.int64]:
    """How many magnitudes of one bin have each value of the lower bits."""
    ours, theirs = operands([base, expert])
    parts: list[NDArray[np.int64]] = []

    def work(start: int, stop: int) -> None:
        tally = np.zeros(2**_LOW_BITS, dtype=np.int64)
        _tally_bin(ours, theirs, start, stop, np.uint32(bin_number), tally)
        parts.append(tally)

    over_ranges(work, ours.size, unit=BLOCK)
    total: NDArray[np.int64] = np.add.reduce(parts)
    return total


@njit(nogil=True, cache=True)
def _patterns(
    base: Flat, expert: Flat, start: int, stop: int, patterns: NDArray[np.uint32]
) -> None:
    for j in range(start, stop):
        x = value_of(expert[j]) - value_of(base[j])
        patterns[j] = np.float32(abs(x)).view(np.uint32)


@njit(nogil=True, cache=True)
def _tally(base: Flat, expert: Flat, start: int, stop: int, tally: NDArray[np.int64]) -> None:
    block = np.empty(BLOCK, np.uint32)
    for position in range(start, stop, BLOCK):
        count = min(BLOCK, stop - position)
        _read_patterns(
            base[position : position + count], expert[position : position + count], block
        )
        for j in range(count):
            tally[block[j] >> np.uint32(15)] += 1


@njit(nogil=True, cache=True)
def _tally_bin(
    base: Flat,
    expert: Flat,
    start: int,
    stop: int,
    bin_number: np.uint32,
    tally: NDArray[np.int64],
) -> None:
    block = np.empty(BLOCK, np.uint32)
    inside = np.empty(BLOCK, np.uint32)
    for position in range(start, stop, BLOCK):
        count = min(BLOCK, stop - position)
        _read_patterns(
            base[position : position + count], expert[position : position + count], block
        )
        size = 0
        for j in range(count):  # without a branch: which elements are inside is hard to foresee
            inside[size] = block[j] & np.uint32(0x7FFF)
            size += 1 if block[j] >> np.uint32(15) == bin_number else 0
        for j in range(size):
            tally[inside[j]] += 1


@njit(nogil=True, cache=True)
def _read_patterns(base: Flat, expert: Flat, patterns: NDArray[np.uint32]) -> None:
    for j in range(base.size):
        x = value_of(expert[j]) - value_of(base[j])
        patterns[j] = np.float32(abs(x)).view(np.uint32)
