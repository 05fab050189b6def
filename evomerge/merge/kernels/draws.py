"""Sums of magnitudes over what a random mask keeps, for every density at once.

The draw of an element never changes in a search; only the limit that it must stay below changes. So
the magnitudes are added up once, by the upper bits of their draws, and the sum for any density is
then looked up.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from evomerge.merge.kernels import portable
from evomerge.merge.kernels.masks import DRAW_BITS, LIMIT_BITS, draw_limit, draw_of
from evomerge.merge.kernels.storage import BLOCK, Flat, operands, value_of
from evomerge.merge.kernels.threads import over_ranges

if TYPE_CHECKING:
    import torch

_BINS = 2**LIMIT_BITS

TABLE_BYTES = 8 * (_BINS + 1)
"""Of the sums by draw."""


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


# The same sums for one density, without the table, where they do not depend on the order.
#
# The table adds numbers up in an order of its own. If all of them are multiples of one power of
# two, and their sum is less than 2**53 times that, every order gives the exact sum. So it is with
# most tensors of 16 bits, and then no table is needed.

_DIGITS = {np.dtype(np.uint16): 7, np.dtype(np.int16): 10, np.dtype(np.float32): 23}
"""Of the numbers of each type of elements: binary digits after the first."""


def exact_sums(
    base: torch.Tensor, expert: torch.Tensor, key: int, probability: float
) -> tuple[float, float] | None:
    """Σ |θ - base| over all elements, and over those with a draw below the limit of a probability.

    None where another order of the elements might give another sum, and on other devices.
    """
    if not portable.runs_here(base):
        return None
    ours, theirs = operands([base, expert])
    low, high = np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32)
    limit = np.uint32(draw_limit(probability))
    parts: list[tuple[Any, Any, Any]] = []

    def work(start: int, stop: int) -> None:
        parts.append(_sum_magnitudes(ours, theirs, low, high, limit, start, stop))

    over_ranges(work, ours.size, unit=BLOCK)
    whole, kept = (float(sum(part[place] for part in parts)) for place in range(2))
    # Every number of the tensors is a multiple of the last digit of the smallest, and so are their
    # differences, also rounded to float32.
    smallest = np.array([part[2] for part in parts], np.uint32).min(keepdims=True) + np.uint32(1)
    _, exponent = math.frexp(float(smallest.view(np.float32)[0]))
    last_digit = max(exponent - 1 - _DIGITS[ours.dtype], _LAST_DIGIT)
    return (whole, kept) if whole < math.ldexp(1.0, _BITS_OF_SUM + last_digit) else None


_LAST_DIGIT = -149  # of float32's smallest numbers
_BITS_OF_SUM = 52
"""One less than float64 has: a larger sum, though rounded, is not less than this many."""


@njit(nogil=True, cache=True)
def _sum_magnitudes(
    base: Flat,
    expert: Flat,
    k0: np.uint32,
    k1: np.uint32,
    limit: np.uint32,
    start: int,
    stop: int,
) -> tuple[Any, Any, Any]:
    """The two sums, and the `_smallest` of both tensors."""
    # A sum for each place in a block: no addition waits for another.
    whole = np.zeros(BLOCK, np.float64)
    kept = np.zeros(BLOCK, np.float64)
    smallest = np.uint32(0xFFFFFFFF)
    for position in range(start, stop, BLOCK):
        end = min(position + BLOCK, stop)
        low = (np.int64(k0) + (position >> 32) * 0x9E3779B9) & 0xFFFFFFFF
        first = np.uint32(position & 0xFFFFFFFF)
        ours, theirs = base[position:end], expert[position:end]
        smallest = min(smallest, _smallest(ours), _smallest(theirs))
        _add_magnitudes(ours, theirs, np.uint32(low), k1, limit, first, whole, kept)
    return np.sum(whole), np.sum(kept), smallest


@njit(nogil=True, cache=True)
def _smallest(part: Flat) -> np.uint32:
    """The bits, less one, of the smallest magnitude that is not zero: zero wraps to the largest."""
    smallest = np.uint32(0xFFFFFFFF)
    for j in range(part.size):
        bits = np.uint32(np.float32(abs(value_of(part[j]))).view(np.uint32) - np.uint32(1))
        smallest = bits if bits < smallest else smallest
    return smallest


@njit(nogil=True, cache=True)
def _add_magnitudes(
    base: Flat,
    expert: Flat,
    k0: np.uint32,
    k1: np.uint32,
    limit: np.uint32,
    first: np.uint32,
    whole: NDArray[np.float64],
    kept: NDArray[np.float64],
) -> None:
    for j in range(base.size):
        x = np.float64(abs(value_of(expert[j]) - value_of(base[j])))
        whole[j] += x
        below = draw_of(np.uint32(first + np.uint32(j)), k0, k1) < limit
        kept[j] += x if below else 0.0
