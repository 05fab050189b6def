"""Reinforced agent merging: shared changes are averaged, a model's own changes are kept in full.

A model is active in an element where it differs from the base by more than epsilon.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evomerge.merge.kernels.across_models import add_active, count_active
from evomerge.merge.methods.base import Inputs, Method, ParameterSpec

if TYPE_CHECKING:
    import torch

_SMALLEST_COUNT = 1e-30  # replaces a count of 0 where epsilon is 0


def merge_ram(inputs: Inputs, out: torch.Tensor) -> None:
    """base + the mean of the active task vectors of each element (Yuan et al. 2026)."""
    _merge(inputs, out, [1.0] * len(inputs.experts))


def merge_ramplus_tl(inputs: Inputs, out: torch.Tensor) -> None:
    """As ram, but a model's own changes are multiplied by 1 + r · clip(shared / own, 0, alpha).

    shared, own: how many elements of the tensor a model changes with others and alone.
    """
    assert inputs.base is not None
    if out.numel() == 0:
        return
    epsilon, r, alpha = (inputs.number(name) for name in ("epsilon", "r", "alpha"))
    base, *experts = _stored(inputs)
    counts = inputs.cached(
        f"shared and own beyond {epsilon!r}",
        (*inputs.experts, inputs.base),
        lambda: count_active(base, experts, epsilon),
    )
    shared, own = counts.tolist()
    least = max(epsilon, _SMALLEST_COUNT)
    ratios = [
        shared_count / max(own_count, least)
        for shared_count, own_count in zip(shared, own, strict=True)
    ]
    _merge(inputs, out, [1.0 + r * min(max(0.0, ratio), alpha) for ratio in ratios])


def _merge(inputs: Inputs, out: torch.Tensor, factors: Sequence[float]) -> None:
    """factors: for each model, the factor of its own changes."""
    base, *experts = _stored(inputs)
    add_active(base, experts, inputs.number("epsilon"), factors, out)


def _stored(inputs: Inputs) -> list[torch.Tensor]:
    assert inputs.base is not None
    return [inputs.stored(member) for member in (inputs.base, *inputs.experts)]


_CITATION = (
    "Yuan et al. 2026, Behavior knowledge merge in reinforced agentic models, arXiv:2601.13572"
)
_EPSILON = ParameterSpec(
    kind="number",
    scope="recipe",
    default=1e-5,
    allowed=(0.0, float("inf")),
    mend="give the smallest difference that counts, 0 or more",
)

RAM = Method(
    name="ram",
    citation=_CITATION,
    parameters={"epsilon": _EPSILON},
    merge=merge_ram,
    needs_base=True,
    weighs_base=False,
    min_models=2,
    mergekit=True,
)

RAMPLUS_TL = Method(
    name="ramplus_tl",
    citation=_CITATION,
    parameters={
        "r": ParameterSpec(kind="number", scope="recipe", default=0.1, search=(0.0, 1.0)),
        "alpha": ParameterSpec(
            kind="number",
            scope="recipe",
            default=0.2,
            allowed=(0.0, float("inf")),
            mend="give the largest ratio that counts, 0 or more",
            search=(0.0, 1.0),
        ),
        "epsilon": _EPSILON,
    },
    merge=merge_ramplus_tl,
    needs_base=True,
    weighs_base=False,
    min_models=2,
    mergekit=True,
)
