"""Tensors as vectors: inner products that are cached between merges, and Model Stock.

A method on the sphere needs the lengths of vectors and the angles between them, and its result is a
weighted sum. Once the inner products are known, a merge is one pass over memory; each method
computes its own weights. Products are float64 sums: cosines are exact to about 1e-15, so angles of
nearly parallel vectors are exact down to 1e-7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.deferred import torch
from evomerge.merge.kernels import gram, row_gram, runs_here, weighted_columns, weighted_sum
from evomerge.merge.methods.base import Inputs, Method, ParameterSpec

Vectors = Literal["whole", "rows", "columns"]
"""Which part of a tensor is one vector: the whole, or each line along its last or first dimension.

A tensor of one dimension is always one vector.
"""

_BLOCK_ELEMENTS = 2**18


def inner_products(
    inputs: Inputs, members: Sequence[int], *, origin: int | None = None, vectors: Vectors = "whole"
) -> NDArray[np.float64]:
    """Inner products of the members' vectors, relative to the origin's if one is given.

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

    products: NDArray[np.float64] = inputs.cached(kind, pair, make)
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
    """Write Σ c·v into `out`; with an origin o, write o + Σ c·(v - o).

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
    """A matrix view with the vectors as rows or columns; the tensor itself if it is one vector."""
    if vectors == "whole" or tensor.numel() == 0:
        return tensor
    shape = tensor.shape
    return tensor.reshape(-1, shape[-1]) if vectors == "rows" else tensor.reshape(shape[0], -1)


def _sum_by_columns(
    tensors: Sequence[torch.Tensor], coefficients: NDArray[np.float64], out: torch.Tensor
) -> None:
    shares = np.ascontiguousarray(coefficients.T, dtype=np.float32)  # (members, columns)
    if not runs_here(out):
        weighted_columns(tensors, shares, out)
        return
    factors = torch.from_numpy(shares)
    step = max(1, _BLOCK_ELEMENTS // max(1, out.shape[-1]))
    for start in range(0, out.shape[0], step):
        rows = slice(start, start + step)
        total = tensors[0][rows].float() * factors[0]
        for tensor, factor in zip(tensors[1:], factors[1:], strict=True):
            total += tensor[rows].float() * factor
        out[rows] = total


# Model stock: the models' angles decide how far to go from the base to the average.


_SMALLEST_PRODUCT = 1e-6  # of two norms
_SMALLEST_DIVISOR = 1e-6


def stock_ratio(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """t = Nc / (1 + (N-1)c), c the mean cosine of all pairs of N task vectors (Jang et al. 2024).

    products: (..., N, N), of the task vectors. Returns (...): 0, the base, where t has no bound.
    """
    count = products.shape[-1]
    first, second = np.triu_indices(count, k=1)
    norms = np.sqrt(np.diagonal(products, axis1=-2, axis2=-1))
    scale = (norms[..., first] * norms[..., second]).clip(min=_SMALLEST_PRODUCT)
    cosine = (products[..., first, second] / scale).clip(-1.0, 1.0).mean(axis=-1)
    divisor = 1.0 + (count - 1) * cosine
    bounded = np.abs(divisor) >= _SMALLEST_DIVISOR
    ratio: NDArray[np.float64] = np.where(
        bounded, count * cosine / np.where(bounded, divisor, 1.0), 0.0
    )
    return ratio


def merge_model_stock(inputs: Inputs, out: torch.Tensor) -> None:
    """t · mean of the models + (1 - t) · base; with `filter_wise`, each row has its own t."""
    experts = inputs.experts
    vectors: Vectors = "rows" if inputs.switch("filter_wise") else "whole"
    ratio = stock_ratio(inner_products(inputs, experts, origin=inputs.base, vectors=vectors))
    shares = np.repeat(ratio[..., None] / len(experts), len(experts), axis=-1)
    write_sum(inputs, experts, shares, out, origin=inputs.base, vectors=vectors)


def stock_coefficients(inputs: Inputs) -> tuple[float, ...] | None:
    """t/N for each model and 1 - t for the base, unless each row has its own t."""
    if inputs.switch("filter_wise"):
        return None
    experts = inputs.experts
    ratio = float(stock_ratio(inner_products(inputs, experts, origin=inputs.base, vectors="whole")))
    share = ratio / len(experts)
    return tuple(share if member in experts else 1.0 - ratio for member in inputs.members)


MODEL_STOCK = Method(
    name="model_stock",
    citation="Jang et al. 2024, Model Stock, arXiv:2403.19522",
    parameters={"filter_wise": ParameterSpec(kind="switch", scope="recipe", default=False)},
    merge=merge_model_stock,
    needs_base=True,
    weighs_base=False,
    min_models=3,
    on_device=True,
    coefficients=stock_coefficients,
    mergekit=True,
)
