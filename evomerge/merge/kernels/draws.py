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
#
# x = θ - base is a multiple of the last digit of the smaller of the two, as both are; and being
# rounded to float32, it is a multiple of its own last digit there. The larger of these counts.


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
    limit, digits = np.uint32(draw_limit(probability)), _DIGITS[ours.dtype]
    parts: list[tuple[Any, Any, Any]] = []

    def work(start: int, stop: int) -> None:
        parts.append(_sum_magnitudes(ours, theirs, digits, low, high, limit, start, stop))

    over_ranges(work, ours.size, unit=BLOCK)
    whole, kept = (float(sum(part[place] for part in parts)) for place in range(2))
    last_digit = (min(int(part[2]) for part in parts) >> _EXPONENT_SHIFT) - _EXPONENT_BIAS
    # A sum that was rounded on the way is not less: numbers up to the limit are not rounded, and
    # nothing is subtracted.
    return (whole, kept) if whole < math.ldexp(1.0, _BITS_OF_SUM + last_digit) else None


_EXPONENT_SHIFT, _EXPONENT_BIAS = 23, 127  # of float32
_BITS_OF_SUM = 53
_NOTHING = 2**31 - 1
"""For zeros, which are multiples of everything; as the bits of a magnitude it would be a NaN."""


@njit(nogil=True, cache=True)
def _sum_magnitudes(
    base: Flat,
    expert: Flat,
    digits: int,
    k0: np.uint32,
    k1: np.uint32,
    limit: np.uint32,
    start: int,
    stop: int,
) -> tuple[Any, Any, Any]:
    """The two sums, and the bits of a float32 whose exponent is the smallest last digit."""
    # A sum for each place in a block: no addition waits for another.
    whole = np.zeros(BLOCK, np.float64)
    kept = np.zeros(BLOCK, np.float64)
    last_digits = np.full(BLOCK, _NOTHING, np.int32)
    for position in range(start, stop, BLOCK):
        end = min(position + BLOCK, stop)
        low = (np.int64(k0) + (position >> 32) * 0x9E3779B9) & 0xFFFFFFFF
        first = np.uint32(position & 0xFFFFFFFF)
        ours, theirs = base[position:end], expert[position:end]
        _lower_last_digits(ours, theirs, np.int32(digits << _EXPONENT_SHIFT), last_digits)
        _add_magnitudes(ours, theirs, np.uint32(low), k1, limit, first, whole, kept)
    return np.sum(whole), np.sum(kept), last_digits.min()


@njit(nogil=True, cache=True)
def _lower_last_digits(
    base: Flat, expert: Flat, digits: np.int32, last_digits: NDArray[np.int32]
) -> None:
    """Lower each to its difference's last digit: bits whose exponent it is, or a smaller one."""
    nothing, digits_of_float32 = np.int32(_NOTHING), np.int32(23 << _EXPONENT_SHIFT)
    for j in range(base.size):
        ours, theirs = value_of(base[j]), value_of(expert[j])
        a = np.float32(abs(ours)).view(np.int32)
        b = np.float32(abs(theirs)).view(np.int32)
        x = np.float32(abs(theirs - ours)).view(np.int32)
        a_counts = a if a != 0 else nothing
        b_counts = b if b != 0 else nothing
        smaller = a_counts if a_counts < b_counts else b_counts
        given, own = np.int32(smaller - digits), np.int32(x - digits_of_float32)
        larger = given if given > own else own
        last = larger if x != 0 else nothing
        last_digits[j] = last if last < last_digits[j] else last_digits[j]


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
