"""Keeping a tensor as the leading model has it; no recipe asks for this by name."""

from __future__ import annotations

import torch

from evomerge.merge.method import Inputs, Method


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
)
"""For tensors that one model alone has, and for modules that a recipe does not name."""
