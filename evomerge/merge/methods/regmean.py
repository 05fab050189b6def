"""RegMean: merged linear layers that best reproduce each model's outputs on its own inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.deferred import torch
from evomerge.errors import EvomergeError
from evomerge.merge.kernels import weighted_sum
from evomerge.merge.kernels.inner_products import one_thread
from evomerge.merge.methods.base import Inputs, Method, ParameterSpec

_NEARLY_SINGULAR = 1e-3
"""1 - alpha under which the equations may have no single solution; see `_solve`."""


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """Statistics of the inputs of one linear layer in every model.

    grams: XᵀX of each member, float32 (in, in). input_axis: the weight's axis that inputs multiply.
    """

    grams: list[torch.Tensor]
    input_axis: int


def merge_regmean(inputs: Inputs, out: torch.Tensor) -> None:
    """(Σ wG)⁻¹ Σ wGW for the weights W of linear layers, (in, out); averages for other tensors.

    Jin et al. 2023, equation 2: the least-squares solution for all models' inputs together. G is
    XᵀX of a model's inputs with the off-diagonals times `alpha`. Embeddings, norms, biases, tied
    heads and fused experts have no G and are averaged by the weights. The solution is computed in
    float64 as a correction of that average, so an input that is always zero changes nothing. Memory
    is about three matrices (in, in) and three (in, out) of float64.

    Raises EvomergeError where every weight is 0 or a statistic is not finite, RecipeError where a
    model was not calibrated.
    """
    used = [member for member in inputs.members if inputs.number("weight", member) != 0.0]
    if not used:
        raise EvomergeError(f"regmean: every weight of {inputs.name} is 0; give one above 0")
    weights = np.array([inputs.number("weight", member) for member in used])
    shares = weights / weights.sum()
    stored = [inputs.stored(member) for member in used]
    layer = _layer(inputs, used)
    if layer is None or len(used) == 1:
        weighted_sum(stored, shares, out)
        return
    with one_thread():
        merged = _least_squares(inputs, stored, layer, shares)
    out.copy_(merged if layer.input_axis == 0 else merged.T)


def _layer(inputs: Inputs, members: list[int]) -> _Layer | None:
    """The layer's inputs; None unless the tensor is a linear layer's weight in every member."""
    grams = [inputs.statistic(member, "inputs") for member in members]
    axes = [inputs.statistic(member, "input_axis") for member in members]
    found = [gram for gram in grams if gram is not None]
    known_axes = {int(axis) for axis in axes if axis is not None}
    if len(found) < len(members) or len(known_axes) != 1:
        return None
    return _Layer(grams=found, input_axis=known_axes.pop())


def _least_squares(
    inputs: Inputs, stored: list[torch.Tensor], layer: _Layer, shares: NDArray[np.float64]
) -> torch.Tensor:
    """The merged weight, float64 (in, out)."""
    alpha = inputs.number("alpha")
    weights = [tensor if layer.input_axis == 0 else tensor.T for tensor in stored]
    average = torch.zeros(weights[0].shape, dtype=torch.float64)
    for weight, share in zip(weights, shares.tolist(), strict=True):
        average += share * weight.double()
    total = torch.zeros(layer.grams[0].shape, dtype=torch.float64)
    wanted = torch.zeros_like(average)
    for gram, weight, share in zip(layer.grams, weights, shares.tolist(), strict=True):
        reduced = gram.double() * (share * alpha)
        reduced.diagonal().copy_(gram.diagonal().double() * share)
        total += reduced
        wanted += reduced @ (weight.double() - average)
    if not bool(torch.isfinite(wanted).all() & torch.isfinite(total).all()):
        raise EvomergeError(
            f"regmean: {inputs.name} or its inputs are not finite; calibrate with other text"
        )
    return average + _solve(total, wanted, definite=1.0 - alpha >= _NEARLY_SINGULAR)


def _solve(total: torch.Tensor, wanted: torch.Tensor, *, definite: bool) -> torch.Tensor:
    """Solve total @ X = wanted for X; where there are several solutions, take the smallest.

    total: float64 (in, in), positive semidefinite. wanted: float64 (in, out). The diagonal is
    scaled to 1. definite: the off-diagonals were reduced, so that no eigenvalue is below 1 - alpha.
    Otherwise directions within the statistics' rounding error are left out.
    """
    diagonal = total.diagonal()
    scale = torch.where(diagonal > 0.0, diagonal.clamp_min(1e-300).rsqrt(), 0.0)  # (in,)
    scaled = total * scale[:, None] * scale
    scaled.diagonal().fill_(1.0)
    right = wanted * scale[:, None]
    solved: torch.Tensor  # (in, out)
    if definite:
        solved = torch.cholesky_solve(right, torch.linalg.cholesky(scaled))
    else:
        values, vectors = torch.linalg.eigh(scaled)
        smallest = values[-1] * len(values) * torch.finfo(torch.float32).eps
        inverse = torch.where(values > smallest, 1.0 / values.clamp_min(1e-300), 0.0)
        solved = vectors @ (inverse[:, None] * (vectors.T @ right))
    return solved * scale[:, None]


REGMEAN = Method(
    name="regmean",
    citation=(
        "Jin et al. 2023, Dataless knowledge fusion by merging weights of language models, "
        "arXiv:2212.09849"
    ),
    parameters={
        "weight": ParameterSpec(
            kind="number",
            scope="model",
            allowed=(0.0, float("inf")),
            mend="give 0 or more",
            search=(0.0, 1.0),
        ),
        "alpha": ParameterSpec(
            kind="number",
            scope="recipe",
            default=0.9,
            allowed=(0.0, 1.0),
            mend="give what to multiply the off-diagonals with",
            search=(0.1, 0.99),
        ),
    },
    merge=merge_regmean,
    needs_base=False,
    weighs_base=True,
    statistics="inputs",
    sums="single",
)
