"""Merges by Fisher information: averages weighted by it, and gradient matching."""

from __future__ import annotations

import numpy as np

from evomerge.deferred import torch
from evomerge.errors import EvomergeError
from evomerge.merge.kernels import blockwise, weighted_sum
from evomerge.merge.methods.base import Inputs, Method, ParameterSpec

FLOOR = 1e-6
"""Smallest Fisher information of an element, as a share of its tensor's mean."""


def merge_fisher(inputs: Inputs, out: torch.Tensor) -> None:
    """Σ wFθ / Σ wF, F the diagonal of a model's empirical Fisher information on its own text.

    Matena & Raffel 2021, equation 4. `normalize` divides each F by its norm over the whole model,
    as the authors' code does, so that models with equal weights count equally; otherwise a model
    that fits its text well has small gradients and hardly counts. F is at least 1e-6 of its mean
    over the tensor. Elements where every F is 0, and tensors without a statistic in one of the
    models, are averaged by the weights alone.

    Raises EvomergeError where every weight is 0, RecipeError where a model was not calibrated.
    """
    used = [member for member in inputs.members if inputs.number("weight", member) != 0.0]
    if not used:
        raise EvomergeError(f"fisher: every weight of {inputs.name} is 0; give one above 0")
    weights = np.array([inputs.number("weight", member) for member in used])
    shares = weights / weights.sum()
    stored = [inputs.stored(member) for member in used]
    diagonals = fisher_diagonals(inputs, used)
    if diagonals is None or len(used) == 1:
        weighted_sum(stored, shares, out)
        return
    floors = [fisher_floor(inputs, member) for member in used]
    scales = [
        float(weight) / (_norm(inputs, member) if inputs.switch("normalize") else 1.0)
        for weight, member in zip(weights, used, strict=True)
    ]

    def average(*blocks: torch.Tensor) -> torch.Tensor:
        values, informations = blocks[: len(used)], blocks[len(used) :]
        parts = [
            information.clamp_min(floor) * scale
            for information, floor, scale in zip(informations, floors, scales, strict=True)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        unknown = total == 0.0
        # Add differences to the first model: where all models agree, the result equals them
        # exactly.
        result = values[0]
        for value, part, share in zip(values[1:], parts[1:], shares[1:], strict=True):
            result = result + torch.where(unknown, float(share), part / total) * (value - values[0])
        return result

    blockwise(average, [*stored, *diagonals], out)


def fisher_diagonals(inputs: Inputs, members: list[int]) -> list[torch.Tensor] | None:
    """The Fisher diagonals of a tensor, float32 in its shape; None unless every member has one.

    Embeddings with the rows of a larger vocabulary have no diagonal in their new shape.
    """
    found = [inputs.statistic(member, "fisher") for member in members]
    diagonals = [
        diagonal
        for diagonal in found
        if diagonal is not None and tuple(diagonal.shape) == tuple(inputs.shape)
    ]
    return diagonals if len(diagonals) == len(members) else None


def fisher_floor(inputs: Inputs, member: int) -> float:
    """The smallest Fisher information that an element of a member's tensor counts with."""
    mean = inputs.statistic(member, "fisher_mean")
    assert mean is not None, "it is stored with every diagonal"
    return FLOOR * float(mean)


def _norm(inputs: Inputs, member: int) -> float:
    """Norm of the diagonal over the member's whole model; 1 where all of it is zero."""
    norm = inputs.statistic(member, "fisher_norm")
    assert norm is not None, "it is stored with every diagonal"
    return float(norm) or 1.0


FISHER = Method(
    name="fisher",
    citation="Matena, Raffel 2021, Merging models with Fisher-weighted averaging, arXiv:2111.09832",
    parameters={
        "weight": ParameterSpec(
            kind="number",
            scope="model",
            allowed=(0.0, float("inf")),
            mend="give 0 or more",
            search=(0.0, 1.0),
        ),
        "normalize": ParameterSpec(kind="switch", scope="recipe", default=True),
    },
    merge=merge_fisher,
    needs_base=False,
    weighs_base=True,
    statistics="fisher",
    sums="single",
)


# Uncertainty-based gradient matching: task vectors weighed by how sure each model is.


def merge_gradient_matching(inputs: Inputs, out: torch.Tensor) -> None:
    """θ₀ + Σ w (H₀ + H)/(H₀ + Σ wH) (θ - θ₀), H the diagonal Hessians.

    Daheim et al. 2024, equation 12. H is the empirical Fisher diagonal of each model on its own
    text, at least 1e-6 of its mean over the tensor; `prior` is added to H₀ (the paper's δ₀). H is
    per token of text, so equal weights treat the models' texts as equally long. Where no model has
    any curvature, and for tensors without a statistic in one of the models, the factor is 1, its
    limit for a large prior: plain task arithmetic.

    Raises RecipeError where a model was not calibrated.
    """
    assert inputs.base is not None
    experts = [member for member in inputs.experts if inputs.number("weight", member) != 0.0]
    base = inputs.stored(inputs.base)
    if not experts:
        out.copy_(base)
        return
    weights = [inputs.number("weight", member) for member in experts]
    members = [inputs.base, *experts]
    diagonals = fisher_diagonals(inputs, members) or []
    floors = [fisher_floor(inputs, member) for member in members] if diagonals else []
    prior = inputs.number("prior")

    def match(*blocks: torch.Tensor) -> torch.Tensor:
        values, informations = blocks[: len(members)], blocks[len(members) :]
        hessians = [
            information.clamp_min(floor)
            for information, floor in zip(informations, floors, strict=True)
        ]
        result = values[0]
        if not hessians:
            for value, weight in zip(values[1:], weights, strict=True):
                result = result + (value - values[0]) * weight
            return result
        base_hessian = hessians[0] + prior
        total = base_hessian
        for hessian, weight in zip(hessians[1:], weights, strict=True):
            total = total + hessian * weight
        flat = total == 0.0
        for value, hessian, weight in zip(values[1:], hessians[1:], weights, strict=True):
            factor = torch.where(flat, 1.0, (base_hessian + hessian) / total)
            result = result + factor * (value - values[0]) * weight
        return result

    stored = [inputs.stored(member) for member in experts]
    blockwise(match, [base, *stored, *diagonals], out)


GRADIENT_MATCHING = Method(
    name="gradient_matching",
    citation=(
        "Daheim et al. 2024, Model merging by uncertainty-based gradient matching, arXiv:2310.12808"
    ),
    parameters={
        "weight": ParameterSpec(
            kind="number",
            scope="model",
            allowed=(0.0, float("inf")),
            mend="give 0 or more",
            search=(0.0, 1.5),
        ),
        "prior": ParameterSpec(
            kind="number",
            scope="recipe",
            default=0.0,
            allowed=(0.0, float("inf")),
            mend="give 0 or more",
        ),
    },
    merge=merge_gradient_matching,
    needs_base=True,
    weighs_base=False,
    min_models=2,
    statistics="fisher",
)
