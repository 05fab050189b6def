"""Weighted averages of models, on the line between them."""

from __future__ import annotations

import numpy as np
import torch

from evomerge.errors import EvomergeError
from evomerge.merge.kernels import weighted_sum
from evomerge.merge.method import Inputs, Method, ParameterSpec


def merge_linear(inputs: Inputs, out: torch.Tensor) -> None:
    """Σ wθ, divided by Σ w where `normalize` (Wortsman et al. 2022).

    Raises EvomergeError where the weights to divide by sum to zero.
    """
    weights = np.array([inputs.number("weight", member) for member in inputs.members])
    if inputs.switch("normalize"):
        divisor = weights.sum()
        if divisor == 0.0:
            raise EvomergeError(
                f"linear: the weights of {inputs.name} sum to 0; give a positive sum or "
                "normalize: false"
            )
        weights = weights / divisor
    weighted_sum([inputs.stored(member) for member in inputs.members], weights, out)


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
    sums="any",
    mergekit=True,
)
