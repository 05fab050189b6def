"""Weighted averages of models, and methods that keep a model's tensor."""

from __future__ import annotations

import numpy as np

from evomerge.deferred import torch
from evomerge.errors import EvomergeError
from evomerge.merge.kernels import weighted_sum
from evomerge.merge.methods.base import Inputs, Method, ParameterSpec


def merge_linear(inputs: Inputs, out: torch.Tensor) -> None:
    """Σ wθ, divided by Σ w where `normalize` (Wortsman et al. 2022).

    Raises EvomergeError where the weights to divide by sum to zero.
    """
    weights = np.array(linear_coefficients(inputs))
    weighted_sum([inputs.stored(member) for member in inputs.members], weights, out)


def linear_coefficients(inputs: Inputs) -> tuple[float, ...]:
    """The weights, divided by their sum where `normalize`. Raises EvomergeError for a sum of 0."""
    weights = np.array([inputs.number("weight", member) for member in inputs.members])
    if inputs.switch("normalize"):
        divisor = weights.sum()
        if divisor == 0.0:
            raise EvomergeError(
                f"linear: the weights of {inputs.name} sum to 0; give a positive sum or "
                "normalize: false"
            )
        weights = weights / divisor
    return tuple(weights.tolist())


LINEAR = Method(
    name="linear",
    citation="Wortsman et al. 2022, Model soups, arXiv:2203.05482",
    parameters={
        "weight": ParameterSpec(kind="number", scope="model", search=(0.0, 1.0)),
        "normalize": ParameterSpec(kind="switch", scope="recipe", default=True),
    },
    merge=merge_linear,
    needs_base=False,
    weighs_base=True,
    on_device=True,
    compiled=True,
    sums="any",
    coefficients=linear_coefficients,
    mergekit=True,
)


# One model's tensors, scaled: for frankenmerges and folded data-flow routes.


def merge_passthrough(inputs: Inputs, out: torch.Tensor) -> None:
    """scale · θ + shift; mergekit has no shift."""
    scale, shift = inputs.number("scale", 0), inputs.number("shift", 0)
    tensors = [inputs.stored(0)]
    if shift:
        tensors.append(torch.ones_like(out, dtype=torch.float32))
    weighted_sum(tensors, np.array([scale, shift][: len(tensors)]), out)


def scaled_coefficients(inputs: Inputs) -> tuple[float, ...] | None:
    """The scale, unless something is added."""
    return None if inputs.number("shift", 0) else (inputs.number("scale", 0),)


PASSTHROUGH = Method(
    name="passthrough",
    citation="Goddard et al. 2024, Arcee's MergeKit (passthrough), arXiv:2403.13257",
    parameters={
        "scale": ParameterSpec(kind="number", scope="model", default=1.0, search=(0.0, 1.5)),
        "shift": ParameterSpec(kind="number", scope="model", default=0.0),
    },
    merge=merge_passthrough,
    needs_base=False,
    weighs_base=True,
    max_models=1,
    on_device=True,
    coefficients=scaled_coefficients,
    mergekit=True,
)


# Keeping a tensor as the leading model has it; recipes cannot name this method.


def merge_copy(inputs: Inputs, out: torch.Tensor) -> None:
    """The only member's tensor, rounded to the dtype of the result."""
    out.copy_(inputs.stored(0))


COPY = Method(
    name="copy",
    citation="",
    parameters={},
    merge=merge_copy,
    needs_base=False,
    weighs_base=True,
    max_models=1,
    compiled=True,
    coefficients=lambda inputs: (1.0,),
)
"""For tensors that only one model has, and for modules that a recipe does not name."""
