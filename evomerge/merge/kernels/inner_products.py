"""Inner products of tensors, the same to the last bit on any number of threads.

Products are float64. Each unit of a fixed size is summed in a fixed number of lanes, and the sums
of units are added in order. So the order of additions does not depend on how the work is split.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from evomerge.deferred import torch
from evomerge.merge.kernels import portable
from evomerge.merge.kernels.storage import (
    BLOCK,
    Flat,
    addresses,
    elements_at,
    operands,
    value_of,
)
from evomerge.merge.kernels.threads import over_ranges

_UNIT = 2**16
_LANES = 32
_ROW_ELEMENTS = 2**20  # of each member that row_gram holds in float64 at a time


def gram(tensors: Sequence[torch.Tensor], base: torch.Tensor | None = None) -> NDArray[np.float64]:
    """Inner products of whole tensors, or of their float32 differences from `base`; (m, m).

    tensors: m of one shape and any floating dtype, on one device.
    """
    if not portable.runs_here(tensors[0]):
        return portable.gram(tensors, base)
    vectors = operands(tensors if base is None else [*tensors, base])
    count, members = vectors[0].size, len(tensors)
    places = addresses(vectors)
    sums = np.zeros((members * (members + 1) // 2, -(-count // _UNIT)))

    def work(start: int, stop: int) -> None:
        _dots(vectors[0], places, members, base is not None, start, stop, sums)

    over_ranges(work, count, unit=_UNIT)
    products = np.zeros((members, members))
    for pair, (row, column) in enumerate(zip(*np.tril_indices(members), strict=True)):
        products[row, column] = products[column, row] = np.add.reduce(sums[pair])
    return products


def row_gram(
    tensors: Sequence[torch.Tensor], base: torch.Tensor | None = None, dim: int = 0
) -> NDArray[np.float64]:
    """Inner products of the slices along `dim` of the tensors (or differences): (rows, m, m)."""
    if tensors[0].numel() == 0:
        return np.zeros((tensors[0].shape[dim], len(tensors), len(tensors)))
    moved = [tensor.movedim(dim, 0).reshape(tensor.shape[dim], -1) for tensor in tensors]
    origin = None if base is None else base.movedim(dim, 0).reshape(base.shape[dim], -1)
    if not portable.runs_here(tensors[0]):
        return portable.row_gram(moved, origin)
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
    array: NDArray[np.float64] = values.double().numpy()
    return array


@njit(nogil=True, cache=True)
def _dots(
    like: Flat,
    vectors: NDArray[np.int64],
    members: int,
    differences: bool,
    start: int,
    stop: int,
    sums: NDArray[np.float64],
) -> None:
    """sums[pair, unit] = Σ a·b of each unit in [start, stop), for the pairs of the lower triangle.

    vectors: addresses of the members, and of the base if it is subtracted. Each member is read
    once for all its pairs.
    """
    pairs = len(sums)
    lanes = np.empty((pairs, _LANES), np.float64)
    origin = np.zeros(BLOCK, np.float32)
    values = np.empty((members, BLOCK), np.float64)
    for unit in range(start // _UNIT, -(-stop // _UNIT)):
        lanes[:] = 0.0
        last = min((unit + 1) * _UNIT, stop)
        for position in range(unit * _UNIT, last, BLOCK):
            end = min(position + BLOCK, last)
            if differences:
                _read(elements_at(vectors[members], like, position, end), origin)
            for member in range(members):
                part = elements_at(vectors[member], like, position, end)
                _read_wide(part, origin, differences, values[member])
            pair = 0
            for row in range(members):
                for column in range(row + 1):
                    _add_products(values[row], values[column], end - position, lanes[pair])
                    pair += 1
        for pair in range(pairs):
            sums[pair, unit] = np.sum(lanes[pair])


@njit(nogil=True, cache=True)
def _read(part: Flat, block: NDArray[np.float32]) -> None:
    for j in range(part.size):
        block[j] = value_of(part[j])


@njit(nogil=True, cache=True)
def _read_wide(
    part: Flat, origin: NDArray[np.float32], differences: bool, block: NDArray[np.float64]
) -> None:
    """block = part, or the float32 difference from the origin, in float64."""
    if differences:
        for j in range(part.size):
            block[j] = np.float64(value_of(part[j]) - origin[j])
    else:
        for j in range(part.size):
            block[j] = np.float64(value_of(part[j]))


@njit(nogil=True, cache=True)
def _add_products(
    a: NDArray[np.float64], b: NDArray[np.float64], count: int, lanes: NDArray[np.float64]
) -> None:
    """Add a·b to the lanes, one after another in turns; `count` elements of a block."""
    whole = count // _LANES * _LANES
    for position in range(0, whole, _LANES):
        # Slices, whose places need no check for negative numbers, are added several at once.
        left, right = a[position : position + _LANES], b[position : position + _LANES]
        for lane in range(_LANES):
            lanes[lane] += left[lane] * right[lane]
    for position in range(whole, count):
        lanes[position - whole] += a[position] * b[position]


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
