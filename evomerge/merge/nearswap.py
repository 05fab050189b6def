"""Nearswap: the other model's value where the two are near, the base's where they are far."""

from __future__ import annotations

import torch

from evomerge.merge.kernels.swaps import swap_near
from evomerge.merge.method import Inputs, Method, ParameterSpec

_SMALLEST_DISTANCE = 1e-6


def merge_nearswap(inputs: Inputs, out: torch.Tensor) -> None:
    """wb + (1 - w)a with w = min(1, max(0, t / |a - b|)), a the base; |a - b| is 1e-6 at least."""
    assert inputs.base is not None
    (other,) = inputs.experts
    base, expert = inputs.stored(inputs.base), inputs.stored(other)
    swap_near(base, expert, inputs.number("t"), _SMALLEST_DISTANCE, out)


NEARSWAP = Method(
    name="nearswap",
    citation="alchemonaut 2024, QuartetAnemoi-70B-t0.0001, huggingface.co/alchemonaut",
    # The distances that matter are those of fine-tuned weights: search t on a log scale.
    parameters={"t": ParameterSpec(kind="number", scope="recipe", search=(1e-5, 1e-1))},
    merge=merge_nearswap,
    needs_base=True,
    weighs_base=False,
    min_models=2,
    max_models=2,
    mergekit=True,
)
