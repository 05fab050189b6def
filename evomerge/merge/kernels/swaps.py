"""Passes over two models that take each element from one of them, or a value between the two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from evomerge.merge.kernels.storage import BLOCK, Flat, flat, operands, stored_as, value_of
from evomerge.merge.kernels.threads import over_ranges

if TYPE_CHECKING:
    import torch


def swap_near(
    base: torch.Tensor, other: torch.Tensor, reach: float, smallest: float, out: torch.Tensor
) -> None:
    """Write the point between base and other at min(1, max(0, reach / distance)) into `out`.

    A distance below `smallest` counts as `smallest`. Tensors of one shape, any floating dtype, on
    the CPU; out: contiguous. Arithmetic is float32, rounded once.
    """
    arrays = operands([base, other])
    target = flat(out)

    def work(start: int, stop: int) -> None:
        _swap_near(
            arrays[0][start:stop],
            arrays[1][start:stop],
            np.float32(reach),
            np.float32(smallest),
            target[start:stop],
        )

    over_ranges(work, out.numel(), unit=BLOCK)


def swap_important(
    base: torch.Tensor,
    other: torch.Tensor,
    importances: NDArray[np.float32],
    threshold: float,
    out: torch.Tensor,
) -> None:
    """Write base + δ into `out` where |δ| times its row's importance is at least the threshold.

    base, other, out: (rows, width). importances: (rows,).
    """
    arrays = operands([base, other])
    target = flat(out)
    width = base.shape[1]

    def work(start: int, stop: int) -> None:
        _swap_important(
            arrays[0], arrays[1], importances, width, np.float32(threshold), target, start, stop
        )

    over_ranges(work, out.numel(), unit=width)


@njit(nogil=True, cache=True, error_model="numpy")
def _swap_near(base: Flat, other: Flat, reach: np.float32, smallest: np.float32, out: Flat) -> None:
    zero, one = np.float32(0.0), np.float32(1.0)
    for j in range(out.size):
        a, b = value_of(base[j]), value_of(other[j])
        distance = abs(a - b)
        share = reach / (distance if distance > smallest else smallest)
        share = one if share > one else share
        share = share if share > zero else zero
        out[j] = stored_as(out, share * b + (one - share) * a)


@njit(nogil=True, cache=True, error_model="numpy")
def _swap_important(
    base: Flat,
    other: Flat,
    importances: NDArray[np.float32],
    width: int,
    threshold: np.float32,
    out: Flat,
    start: int,
    stop: int,
) -> None:
    for row in range(start // width, stop // width):
        part = slice(row * width, (row + 1) * width)
        _swap_row(base[part], other[part], importances[row], threshold, out[part])


@njit(nogil=True, cache=True, error_model="numpy")
def _swap_row(
    base: Flat, other: Flat, importance: np.float32, threshold: np.float32, out: Flat
) -> None:
    for j in range(out.size):
        origin = value_of(base[j])
        x = value_of(other[j]) - origin
        fused = abs(x) * importance >= threshold
        out[j] = stored_as(out, origin + (x if fused else np.float32(0.0)))
