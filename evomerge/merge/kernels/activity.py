"""Passes over which models change an element at all: shared changes averaged, others kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from evomerge.merge.kernels.storage import BLOCK, Flat, flat, operands, stored_as, value_of
from evomerge.merge.kernels.threads import over_ranges
from evomerge.merge.kernels.variance import read_task_vectors


def count_active(
    base: torch.Tensor, experts: Sequence[torch.Tensor], epsilon: float
) -> NDArray[np.int64]:
    """How many elements each expert changes with others, and alone; (2, experts).

    Changes are those of more than epsilon. Tensors of one shape, any floating dtype, on the CPU.
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
    """Write base + the mean of the changes of more than epsilon into `out`, rounded once.

    factors: what multiplies the changes that one expert alone makes. out: contiguous, of the
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
    """members: one more than there are vectors; the length of a tuple is known to the compiler,
    which then unrolls the loop over it."""
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
