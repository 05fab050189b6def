"""Passes that select elements by how much models differ in them, with elected signs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from evomerge.deferred import torch
from evomerge.merge.kernels.storage import BLOCK, Flat, flat, operands, stored_as, value_of
from evomerge.merge.kernels.threads import over_ranges

_UNIT = 2**16
"""Elements that are summed together; the sums of units are added in order."""


def variances(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The variance of the task vectors over the experts, divided by their number; float32, (n,)."""
    arrays = operands([base, *experts])
    found = np.empty(base.numel(), dtype=np.float32)

    def work(start: int, stop: int) -> None:
        _variances(arrays, start, stop, found)

    over_ranges(work, base.numel(), unit=BLOCK)
    return torch.from_numpy(found)


def selected_squares(
    base: torch.Tensor, experts: Sequence[torch.Tensor], least: float
) -> NDArray[np.float64]:
    """Σ δ² of each expert over elements with a variance of at least `least`; (experts,)."""
    arrays = operands([base, *experts])
    sums = np.zeros((-(-base.numel() // _UNIT), len(experts)))

    def work(start: int, stop: int) -> None:
        _selected_squares(arrays, np.float32(least), start, stop, sums)

    over_ranges(work, base.numel(), unit=_UNIT)
    total: NDArray[np.float64] = np.add.reduce(sums)
    return total


def add_selected(
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    weights: Sequence[float],
    least: float,
    smallest_divisor: float,
    out: torch.Tensor,
) -> None:
    """Write base + Σ wδ / Σ w into `out`, over the δ with the sign of their sum; rounded once.

    Elements with a variance below `least` stay as in the base. The divisor is at least
    `smallest_divisor`. out: contiguous, of the base's shape.
    """
    arrays = operands([base, *experts])
    shares = np.array(weights, dtype=np.float32)
    numbers = np.array([least, smallest_divisor], dtype=np.float32)
    target = flat(out)

    def work(start: int, stop: int) -> None:
        _add_selected(arrays, shares, numbers, target, start, stop)

    over_ranges(work, out.numel(), unit=BLOCK)


@njit(nogil=True, cache=True, error_model="numpy")
def read_task_vectors(
    arrays: tuple[Flat, ...], position: int, base: NDArray[np.float32], vectors: NDArray[np.float32]
) -> None:
    """base, vectors = the elements from `position` on: (BLOCK,), (experts, BLOCK)."""
    count = min(BLOCK, arrays[0].size - position)
    part = arrays[0][position : position + count]
    for j in range(count):
        base[j] = value_of(part[j])
    for member in range(1, len(arrays)):
        part = arrays[member][position : position + count]
        for j in range(count):
            vectors[member - 1, j] = value_of(part[j]) - base[j]


@njit(nogil=True, cache=True, error_model="numpy")
def _spread(
    members: tuple[Any, ...], vectors: NDArray[np.float32], found: NDArray[np.float32]
) -> None:
    """found = the variance of each column of `vectors`. members: one more than there are rows.
    The compiler knows the length of a tuple, so it unrolls the loops over it."""
    number = np.float32(len(members) - 1)
    for j in range(found.size):
        mean = np.float32(0.0)
        for member in range(len(members) - 1):
            mean += vectors[member, j]
        mean /= number
        total = np.float32(0.0)
        for member in range(len(members) - 1):
            apart = vectors[member, j] - mean
            total += apart * apart
        found[j] = total / number


@njit(nogil=True, cache=True, error_model="numpy")
def _variances(arrays: tuple[Flat, ...], start: int, stop: int, found: NDArray[np.float32]) -> None:
    base = np.empty(BLOCK, np.float32)
    vectors = np.zeros((len(arrays) - 1, BLOCK), np.float32)
    for position in range(start, stop, BLOCK):
        read_task_vectors(arrays, position, base, vectors)
        _spread(arrays, vectors, found[position : min(stop, position + BLOCK)])


@njit(nogil=True, cache=True, error_model="numpy")
def _selected_squares(
    arrays: tuple[Flat, ...],
    least: np.float32,
    start: int,
    stop: int,
    sums: NDArray[np.float64],
) -> None:
    base = np.empty(BLOCK, np.float32)
    spread = np.empty(BLOCK, np.float32)
    vectors = np.zeros((len(arrays) - 1, BLOCK), np.float32)
    lanes = np.empty((len(arrays) - 1, BLOCK), np.float64)
    for unit in range(start // _UNIT, -(-stop // _UNIT)):
        lanes[:] = 0.0
        for position in range(unit * _UNIT, min((unit + 1) * _UNIT, stop), BLOCK):
            count = min(BLOCK, stop - position)
            read_task_vectors(arrays, position, base, vectors)
            _spread(arrays, vectors, spread)
            for member in range(len(arrays) - 1):
                for j in range(count):
                    kept = vectors[member, j] if spread[j] >= least else np.float32(0.0)
                    lanes[member, j] += np.float64(kept) * np.float64(kept)
        for member in range(len(arrays) - 1):
            sums[unit, member] = np.sum(lanes[member])


@njit(nogil=True, cache=True, error_model="numpy")
def _add_selected(
    arrays: tuple[Flat, ...],
    weights: NDArray[np.float32],
    numbers: NDArray[np.float32],
    out: Flat,
    start: int,
    stop: int,
) -> None:
    base = np.empty(BLOCK, np.float32)
    spread = np.empty(BLOCK, np.float32)
    vectors = np.zeros((len(arrays) - 1, BLOCK), np.float32)
    for position in range(start, stop, BLOCK):
        read_task_vectors(arrays, position, base, vectors)
        _spread(arrays, vectors, spread)
        part = out[position : min(stop, position + BLOCK)]
        _elect(arrays, vectors, spread, weights, numbers, base, part)


@njit(nogil=True, cache=True, error_model="numpy")
def _elect(
    members: tuple[Any, ...],
    vectors: NDArray[np.float32],
    spread: NDArray[np.float32],
    weights: NDArray[np.float32],
    numbers: NDArray[np.float32],
    base: NDArray[np.float32],
    out: Flat,
) -> None:
    """members: as in `_spread`. numbers: the least variance, the smallest divisor."""
    zero, one = np.float32(0.0), np.float32(1.0)
    least, smallest = numbers[0], numbers[1]
    for j in range(out.size):
        vote = zero
        for member in range(len(members) - 1):
            vote += vectors[member, j]
        sign = one if vote >= zero else -one
        total, divisor = zero, zero
        for member in range(len(members) - 1):
            agreeing = vectors[member, j] * sign
            weight = weights[member]
            total += agreeing * weight if agreeing > zero else zero
            divisor += weight if agreeing > zero else zero
        change = total * sign / (divisor if divisor > smallest else smallest)
        out[j] = stored_as(out, base[j] + (change if spread[j] >= least else zero))


# Passes that average the changes that models share and keep the changes of one model alone.


def count_active(
    base: torch.Tensor, experts: Sequence[torch.Tensor], epsilon: float
) -> NDArray[np.int64]:
    """How many elements each expert changes with others, and alone; (2, experts).

    A change counts if it is larger than epsilon. Tensors of one shape, any floating dtype, on the
    CPU.
    """
    arrays = operands([base, *experts])
    parts: list[NDArray[np.int64]] = []

    def work(start: int, stop: int) -> None:
        counts = np.zeros((2, len(experts)), dtype=np.int64)
        _count_active(arrays, np.float32(epsilon), start, stop, counts)
        parts.append(counts)

    over_ranges(work, base.numel(), unit=BLOCK)
    total: NDArray[np.int64] = np.add.reduce(parts)
    return total


def add_active(
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    epsilon: float,
    factors: Sequence[float],
    out: torch.Tensor,
) -> None:
    """Write base + the mean of the changes larger than epsilon into `out`, rounded once.

    factors: for each expert, the factor of the changes that it alone makes. out: contiguous, of the
    base's shape.
    """
    arrays = operands([base, *experts])
    scales = np.array(factors, dtype=np.float32)
    target = flat(out)

    def work(start: int, stop: int) -> None:
        _add_active(arrays, np.float32(epsilon), scales, target, start, stop)

    over_ranges(work, out.numel(), unit=BLOCK)


@njit(nogil=True, cache=True, error_model="numpy")
def _count_active(
    arrays: tuple[Flat, ...],
    epsilon: np.float32,
    start: int,
    stop: int,
    counts: NDArray[np.int64],
) -> None:
    number = np.empty(BLOCK, np.int32)
    for position in range(start, stop, BLOCK):
        count = min(BLOCK, stop - position)
        base = arrays[0][position : position + count]
        number[:] = 0
        for member in range(1, len(arrays)):
            part = arrays[member][position : position + count]
            for j in range(count):
                active = abs(value_of(part[j]) - value_of(base[j])) > epsilon
                number[j] += np.int32(1) if active else np.int32(0)
        for member in range(1, len(arrays)):
            part = arrays[member][position : position + count]
            shared, own = np.int32(0), np.int32(0)
            for j in range(count):
                active = abs(value_of(part[j]) - value_of(base[j])) > epsilon
                shared += np.int32(1) if active and number[j] > 1 else np.int32(0)
                own += np.int32(1) if active and number[j] == 1 else np.int32(0)
            counts[0, member - 1] += shared
            counts[1, member - 1] += own


@njit(nogil=True, cache=True, error_model="numpy")
def _add_active(
    arrays: tuple[Flat, ...],
    epsilon: np.float32,
    factors: NDArray[np.float32],
    out: Flat,
    start: int,
    stop: int,
) -> None:
    base = np.empty(BLOCK, np.float32)
    vectors = np.zeros((len(arrays) - 1, BLOCK), np.float32)
    for position in range(start, stop, BLOCK):
        read_task_vectors(arrays, position, base, vectors)
        part = out[position : min(stop, position + BLOCK)]
        _add_mean(arrays, vectors, epsilon, factors, base, part)


@njit(nogil=True, cache=True, error_model="numpy")
def _add_mean(
    members: tuple[Any, ...],
    vectors: NDArray[np.float32],
    epsilon: np.float32,
    factors: NDArray[np.float32],
    base: NDArray[np.float32],
    out: Flat,
) -> None:
    """members: one more than there are vectors. The compiler knows the length of a tuple, so it
    unrolls the loop over it."""
    zero, one = np.float32(0.0), np.float32(1.0)
    for j in range(out.size):
        number, shared, alone = zero, zero, zero
        for member in range(len(members) - 1):
            x = vectors[member, j]
            factor = factors[member]
            kept = x if abs(x) > epsilon else zero
            number += one if abs(x) > epsilon else zero
            shared += kept
            alone += kept * factor
        mean = shared / (number if number > one else one)
        out[j] = stored_as(out, base[j] + (alone if number == one else mean))
