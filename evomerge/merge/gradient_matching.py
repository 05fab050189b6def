"""Uncertainty-based gradient matching: task vectors weighed by how sure each model is."""

from __future__ import annotations

import torch

from evomerge.merge.fisher import fisher_diagonals, fisher_floor
from evomerge.merge.kernels import blockwise
from evomerge.merge.method import Inputs, Method, ParameterSpec


def merge_gradient_matching(inputs: Inputs, out: torch.Tensor) -> None:
    """θ₀ + Σ w (H₀ + H)/(H₀ + Σ wH) (θ - θ₀), H the diagonal Hessians.

    Daheim et al. 2024, equation 12. H is the empirical Fisher diagonal of each model on its own
    text, raised to 1e-6 of its mean over the tensor; `prior` is added to that of the base (the
    paper's δ₀). It is per token of text, so that equal weights take the models' texts for equally
    long. Where no model has any curvature, and for tensors without a statistic in one of the
    models, the factor is 1, its limit for a large prior: plain task arithmetic.

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
