"""Passthrough: one model's tensors, scaled and shifted."""

from __future__ import annotations

import pytest
import torch

from evomerge.errors import RecipeError
from tests.merge.conftest import Document, Family


def document(family: Family, **parameters: object) -> Document:
    return {
        "merge_method": "passthrough",
        "models": [{"model": family.experts[0], "parameters": parameters}],
    }


def test_a_shift_is_added_to_what_is_scaled(family: Family) -> None:
    """In float32: one rounding of the product and one of the sum."""
    shift = [{"filter": "layernorm", "value": -0.4}, {"value": 0.0}]
    scale = [{"filter": "layernorm", "value": 0.6}, {"value": -1.25}]
    merged = family.merge(document(family, scale=scale, shift=shift))
    for name, stored in family.tensors(family.experts[0]).items():
        scaled = stored * (0.6 if "layernorm" in name else -1.25)
        assert torch.equal(merged[name], scaled - 0.4 if "layernorm" in name else scaled), name


def test_a_shift_is_rounded_once_to_the_dtype_that_is_stored(bfloat16_family: Family) -> None:
    merged = bfloat16_family.merge(document(bfloat16_family, scale=0.7, shift=0.3))
    for name, stored in bfloat16_family.tensors(bfloat16_family.experts[0]).items():
        assert torch.equal(merged[name], (stored.float() * 0.7 + 0.3).bfloat16()), name


def test_a_shift_alone_is_added_to_nothing(family: Family) -> None:
    merged = family.merge(document(family, scale=0.0, shift=0.3))
    assert all((tensor == torch.tensor(0.3)).all() for tensor in merged.values())


def test_a_shift_is_a_finite_number(family: Family) -> None:
    with pytest.raises(RecipeError, match=r"\.inf is no finite number"):
        family.merge(document(family, shift=float("inf")))
