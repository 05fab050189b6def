"""Tensors as vectors: their inner products, kept between merges, and weighted sums of them.

A method on the sphere needs the lengths of vectors and the angles between them, and gives a
weighted sum: with the inner products at hand it is one pass over memory. Which weights, the methods
say. Products are float64 sums: cosines are exact to about 1e-15, so angles of nearly parallel
vectors are too, down to 1e-7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.merge.kernels import gram, row_gram, weighted_sum
from evomerge.merge.method import Inputs

Vectors = Literal["whole", "rows", "columns"]
"""What of a tensor is one vector: all of it, or each line along its last or its first dimension.

Tensors of one dimension are one vector whatever is said.
"""

_BLOCK_ELEMENTS = 2**18


def inner_products(
    inputs: Inputs, members: Sequence[int], *, origin: int | None = None, vectors: Vectors = "whole"
) -> NDArray[np.float64]:
    """Inner products of the members' vectors, seen from the origin's where one is given.

    Returns (members, members), or (vectors, members, members) where a tensor is several vectors.
    """
    vectors = _effective(vectors, inputs.shape)
    pair = (*members, *([] if origin is None else [origin]))
    kind = f"inner products, {vectors}" + ("" if origin is None else " from the last")

    def make() -> NDArray[np.float64]:
        tensors = [_as_matrix(inputs.stored(member), vectors) for member in members]
        base = None if origin is None else _as_matrix(inputs.stored(origin), vectors)
        if vectors == "whole":
            return gram(tensors, base)
        return row_gram(tensors, base, dim=0 if vectors == "rows" else 1)

    products: NDArray[np.float64] = inputs.fact(kind, pair, make)
    return products


def write_sum(
    inputs: Inputs,
    members: Sequence[int],
    coefficients: NDArray[np.float64],
    out: torch.Tensor,
    *,
    origin: int | None = None,
    vectors: Vectors = "whole",
) -> None:
    """Write Σ c·v into `out`; from an origin o that is o + Σ c·(v - o).

    coefficients: (members,), or (vectors, members) where a tensor is several vectors.
    """
    vectors = _effective(vectors, inputs.shape)
    if origin is not None:
        members = [*members, origin]
        rest = 1.0 - coefficients.sum(axis=-1, keepdims=True)
        coefficients = np.concatenate([coefficients, rest], axis=-1)
    tensors = [_as_matrix(inputs.stored(member), vectors) for member in members]
    target = _as_matrix(out, vectors)
    if vectors == "columns":
        _sum_by_columns(tensors, coefficients, target)
    else:
        weighted_sum(tensors, coefficients, target)


def _effective(vectors: Vectors, shape: tuple[int, ...]) -> Vectors:
    return vectors if len(shape) > 1 else "whole"


def _as_matrix(tensor: torch.Tensor, vectors: Vectors) -> torch.Tensor:
    """Views with the vectors as rows or as columns of a matrix; as it is where it is one vector."""
    if vectors == "whole" or tensor.numel() == 0:
        return tensor
    shape = tensor.shape
    return tensor.reshape(-1, shape[-1]) if vectors == "rows" else tensor.reshape(shape[0], -1)


def _sum_by_columns(
    tensors: Sequence[torch.Tensor], coefficients: NDArray[np.float64], out: torch.Tensor
) -> None:
    # (members, columns)
    factors = torch.from_numpy(coefficients.T.astype(np.float32)).to(out.device)
    step = max(1, _BLOCK_ELEMENTS // max(1, out.shape[-1]))
    for start in range(0, out.shape[0], step):
        rows = slice(start, start + step)
        total = tensors[0][rows].float() * factors[0]
        for tensor, factor in zip(tensors[1:], factors[1:], strict=True):
            total += tensor[rows].float() * factor
        out[rows] = total
