"""SCE: select what varies among the models, calculate their weights, erase what disagrees.

The order of the elements by variance is the same for every candidate, so it is cached.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evomerge.deferred import torch
from evomerge.merge.kernels import count_magnitudes, low_bits_in_order, magnitude_at
from evomerge.merge.kernels.across_models import add_selected, selected_squares, variances
from evomerge.merge.methods.base import Inputs, Method, ParameterSpec

_SMALLEST_WEIGHT = 1e-6


def merge_sce(inputs: Inputs, out: torch.Tensor) -> None:
    """base + Σ wδ / Σ w over the selected task vectors that agree in sign (Wan et al. 2024).

    Among the elements with a variance above zero, the fraction `select_topk` with the largest
    variance is selected; ties at the end of the selection are all kept. A model's weight is its
    share of the mean squares of the selected elements. The sign is that of the sum, + where it is
    zero.
    """
    assert inputs.base is not None
    base, *experts = (inputs.stored(member) for member in (inputs.base, *inputs.experts))
    least = _least_variance(inputs, base, experts)
    if least is None:
        out.copy_(base)
        return
    weights = _weights(inputs, base, experts, least)
    add_selected(base, experts, weights, least, _SMALLEST_WEIGHT, out)


def _weights(
    inputs: Inputs, base: torch.Tensor, experts: Sequence[torch.Tensor], least: float
) -> list[float]:
    """Each expert's share of the squares of selected elements; equal shares where these vanish."""
    assert inputs.base is not None
    if least > 0.0:
        squares = selected_squares(base, experts, least)
    else:
        members = (*inputs.experts, inputs.base)
        squares = inputs.cached(
            "squares of task vectors", members, lambda: selected_squares(base, experts, 0.0)
        )
    total = float(squares.sum())
    if total / base.numel() < _SMALLEST_WEIGHT:
        return [1.0 / len(experts)] * len(experts)
    return [float(part) / total for part in squares]


def _least_variance(
    inputs: Inputs, base: torch.Tensor, experts: Sequence[torch.Tensor]
) -> float | None:
    """The smallest variance that is selected; 0 selects all elements, None selects none."""
    assert inputs.base is not None
    share, count = inputs.number("select_topk"), base.numel()
    if share <= 0.0 or count == 0:
        return None
    if share >= 1.0:
        return 0.0
    members = (*inputs.experts, inputs.base)
    zeros = torch.zeros(1).expand(count)
    varying = inputs.cached(
        "elements that vary",
        members,
        lambda: np.array([int(torch.count_nonzero(variances(base, experts)))]),
    )
    selected = int(int(varying[0]) * share)
    if selected == 0:
        return None
    counts = inputs.cached(
        "variances counted", members, lambda: count_magnitudes(zeros, variances(base, experts))
    )
    place = count - selected
    if not inputs.keeps("variances in order", members, 2 * count):
        return magnitude_at(place, counts, None, zeros, variances(base, experts))
    order = inputs.cached(
        "variances in order", members, lambda: low_bits_in_order(zeros, variances(base, experts))
    )
    return magnitude_at(place, counts, order, zeros, zeros)


SCE = Method(
    name="sce",
    citation="Wan et al. 2024, FuseChat (SCE), arXiv:2408.07990",
    parameters={
        "select_topk": ParameterSpec(
            kind="number",
            scope="recipe",
            default=1.0,
            allowed=(0.0, 1.0),
            mend="give the fraction of elements to select",
            search=(0.05, 1.0),
        )
    },
    merge=merge_sce,
    needs_base=True,
    weighs_base=False,
    min_models=2,
    mergekit=True,
)
