"""Model stock: how far to go from the base to the average follows from the models' angles."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.merge.geometry import Vectors, inner_products, write_sum
from evomerge.merge.method import Inputs, Method, ParameterSpec

_SMALLEST_PRODUCT = 1e-6  # of two norms
_SMALLEST_DIVISOR = 1e-6


def stock_ratio(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """t = Nc / (1 + (N-1)c), c the mean cosine of all pairs of N task vectors (Jang et al. 2024).

    products: (..., N, N), of the task vectors; returns (...). 0, the base, where it has no bound.
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
    """t · mean of the models + (1 - t) · base; `filter_wise` with a t for each row."""
    experts = inputs.experts
    vectors: Vectors = "rows" if inputs.switch("filter_wise") else "whole"
    ratio = stock_ratio(inner_products(inputs, experts, origin=inputs.base, vectors=vectors))
    shares = np.repeat(ratio[..., None] / len(experts), len(experts), axis=-1)
    write_sum(inputs, experts, shares, out, origin=inputs.base, vectors=vectors)


MODEL_STOCK = Method(
    name="model_stock",
    citation="Jang et al. 2024, Model Stock, arXiv:2403.19522",
    parameters={"filter_wise": ParameterSpec(kind="switch", scope="recipe", default=False)},
    merge=merge_model_stock,
    needs_base=True,
    weighs_base=False,
    min_models=3,
    on_device=True,
    mergekit=True,
)
