"""Weighted averages of models: on the line between them (linear) and on the sphere (slerp)."""

from __future__ import annotations

import math

import torch

from evomerge.errors import EvomergeError
from evomerge.merge.method import Inputs, Method, ParameterSpec
from evomerge.merge.reductions import dot_product

_PARALLEL = 0.9995  # beyond this cosine the arc is a line, and its formula loses its digits
_SMALLEST_NORM = 1e-8


def merge_linear(inputs: Inputs) -> torch.Tensor:
    """Σ wθ, divided by Σ w where `normalize` (Wortsman et al. 2022).

    Raises EvomergeError where the weights to divide by sum to zero.
    """
    weights = {member: inputs.number("weight", member) for member in inputs.members}
    total: torch.Tensor | None = None
    for member, weight in weights.items():
        if weight == 0.0:
            continue
        term = inputs.tensor(member) * weight
        total = term if total is None else total.add_(term)
    divisor = sum(weights.values())
    if inputs.switch("normalize"):
        if total is None or divisor == 0.0:
            raise EvomergeError(
                f"linear: the weights of {inputs.name} sum to 0; give a positive sum or "
                "normalize: false"
            )
        return total.div_(divisor)
    return torch.zeros_like(inputs.tensor(0)) if total is None else total


def merge_slerp(inputs: Inputs) -> torch.Tensor:
    """[sin((1-t)Ω) a + sin(tΩ) b] / sin Ω, a the base, Ω the angle between the whole tensors.

    Shoemake 1985. Nearly parallel tensors are averaged on the line instead.
    """
    assert inputs.base is not None
    (other,) = inputs.experts
    a, b, t = inputs.tensor(inputs.base), inputs.tensor(other), inputs.number("t")
    norms = [math.sqrt(dot_product(x, x)) for x in (a, b)]
    scale = math.prod(norm if norm > _SMALLEST_NORM else 1.0 for norm in norms)
    cosine = max(-1.0, min(1.0, dot_product(a, b) / scale))
    share_a, share_b = 1.0 - t, t
    if abs(cosine) <= _PARALLEL:
        angle = math.acos(cosine)
        share_a = math.sin((1.0 - t) * angle) / math.sin(angle)
        share_b = math.sin(t * angle) / math.sin(angle)
    return (a * share_a).add_(b * share_b)


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
)

SLERP = Method(
    name="slerp",
    citation="Shoemake 1985, Animating rotation with quaternion curves, SIGGRAPH",
    parameters={"t": ParameterSpec(kind="number", scope="recipe", search=(0.0, 1.0))},
    merge=merge_slerp,
    needs_base=True,
    weighs_base=False,
    min_models=2,
    max_models=2,
)
