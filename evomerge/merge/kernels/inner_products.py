"""Inner products of tensors, the same to the last bit on any number of threads.

Products are float64. Each unit of a fixed size is summed in a fixed number of lanes, and the sums
of units are added in order. So the order of additions does not depend on how the work is split.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from evomerge.deferred import deferred
from evomerge.merge.kernels import portable
from evomerge.merge.kernels.storage import Flat, operands, value_of
from evomerge.merge.kernels.threads import over_ranges

if TYPE_CHECKING:
    import torch
else:
    torch = deferred("torch")

_UNIT = 2**16
_LANES = 32
_ROW_ELEMENTS = 2**20  # of each member that row_gram holds in float64 at a time


def gram(tensors: Sequence[torch.Tensor], base: torch.Tensor | None = None) -> NDArray[np.float64]:
    """Inner products of whole tensors, or of their float32 differences from `base`; (m, m).

    tensors: m of one shape and any floating dtype, on one device.
    """
    if not portable.runs_here(tensors[0]):
        return portable.gram(tensors, base)
    arrays = operands([*tensors, *([] if base is None else [base])])
    vectors, origin = arrays[: len(tensors)], arrays[-1]
    count = vectors[0].size
    products = np.zeros((len(tensors), len(tensors)))
    for row, first in enumerate(vectors):
        for column, second in enumerate(vectors[: row + 1]):
            sums = np.zeros(-(-count // _UNIT))

            def work(
                start: int,
                stop: int,
                a: Flat = first,
                b: Flat = second,
                into: NDArray[np.float64] = sums,
            ) -> None:
                _dots(a, b, origin, base is not None, start, stop, into)

            over_ranges(work, count, unit=_UNIT)
            products[row, column] = products[column, row] = np.add.reduce(sums)
    return products


def row_gram(
    tensors: Sequence[torch.Tensor], base: torch.Tensor | None = None, dim: int = 0
) -> NDArray[np.float64]:
    """Inner products of the slices along `dim` of the tensors (or differences): (rows, m, m)."""
    if tensors[0].numel() == 0:
        return np.zeros((tensors[0].shape[dim], len(tensors), len(tensors)))
    moved = [tensor.movedim(dim, 0).reshape(tensor.shape[dim], -1) for tensor in tensors]
    origin = None if base is None else base.movedim(dim, 0).reshape(base.shape[dim], -1)
    rows, width = moved[0].shape
    products = np.zeros((rows, len(tensors), len(tensors)))
    step = max(1, _ROW_ELEMENTS // max(1, width))
    for start in range(0, rows, step):
        part = slice(start, start + step)
        blocks = [
            _float64(tensor[part], None if origin is None else origin[part]) for tensor in moved
        ]
        for row, first in enumerate(blocks):
            for column, second in enumerate(blocks[: row + 1]):
                dots = np.add.reduce(first * second, axis=1)
                products[part, row, column] = products[part, column, row] = dots
    return products


def _float64(block: torch.Tensor, origin: torch.Tensor | None) -> NDArray[np.float64]:
    values = block.float() if origin is None else block.float() - origin.float()
    array: NDArray[np.float64] = values.double().cpu().numpy()
    return array


@njit(nogil=True, cache=True)
def _dots(
    a: Flat,
    b: Flat,
    base: Flat,
    differences: bool,
    start: int,
    stop: int,
    sums: NDArray[np.float64],
) -> None:
    """sums[unit] = Σ a·b of each unit in [start, stop)."""
    lanes = np.empty(_LANES, np.float64)
    for unit in range(start // _UNIT, -(-stop // _UNIT)):
        lanes[:] = 0.0
        first, last = unit * _UNIT, min((unit + 1) * _UNIT, stop)
        whole = first + (last - first) // _LANES * _LANES
        if differences:
            for position in range(first, whole, _LANES):
                for lane in range(_LANES):
                    origin = value_of(base[position + lane])
                    x = value_of(a[position + lane]) - origin
                    y = value_of(b[position + lane]) - origin
                    lanes[lane] += np.float64(x) * np.float64(y)
        else:
            for position in range(first, whole, _LANES):
                for lane in range(_LANES):
                    x = value_of(a[position + lane])
                    y = value_of(b[position + lane])
                    lanes[lane] += np.float64(x) * np.float64(y)
        for position in range(whole, last):
            origin = value_of(base[position]) if differences else np.float32(0.0)
            x, y = value_of(a[position]) - origin, value_of(b[position]) - origin
            lanes[position - whole] += np.float64(x) * np.float64(y)
        sums[unit] = np.sum(lanes)


# Decompositions and products of matrices that do not depend on the number of threads.
#
# A library adds up in another order on several threads than on one, and a search, its workers and
# an export may use different numbers of threads. So all of them use one thread here. This is
# slower, but gives the same bytes.


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run the linear algebra inside on one thread of this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
