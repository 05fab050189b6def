"""What each model counts with in a merged tensor, where a method adds whole models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from evomerge.merge.methods.registry import METHODS
from tests.merge.conftest import as_recipe
from tests.merge.memory_sources import engine_over
from tests.merge.test_methods import contract_document, random_models

SUMS = {"linear", "task_arithmetic", "passthrough", "model_stock"}
WHOLE = {"dare_linear", "breadcrumbs", "della_linear"}
"""Sums of models where every element is kept."""


def check(document: dict[str, Any]) -> bool:
    """Whether the coefficients are told; they must then give the merged tensors."""
    models = random_models()
    engine, recipe = engine_over(models), as_recipe(document)
    told = set()
    for tensor in engine.plan(recipe).tensors:
        counts = engine.coefficients(recipe, tensor)
        told.add(counts is not None)
        if counts is not None:
            members = [models[member.reference][member.tensor] for member in tensor.members]
            expected = sum(c * each.double() for c, each in zip(counts, members, strict=True))
            merged = engine.merge_tensor(recipe, tensor).double()
            torch.testing.assert_close(merged, torch.as_tensor(expected), rtol=1e-6, atol=1e-6)
    assert len(told) == 1
    return told == {True}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_tells_what_its_models_count_with_or_that_it_adds_no_models(
    method: str, tmp_path: Path
) -> None:
    document = contract_document(method, tmp_path, random_models())
    assert check(document) == (method in SUMS)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("method", sorted({*WHOLE, "task_arithmetic"}))
def test_task_vectors_that_are_kept_whole_are_added(method: str, normalize: bool) -> None:
    document = {
        "merge_method": method,
        "base_model": "base",
        "models": [
            {"model": name, "parameters": {"weight": weight, "density": 1.0}}
            for name, weight in (("one", 0.731), ("two", -0.213), ("three", 0.0))
        ],
        "parameters": {"lambda": 1.37, "normalize": normalize},
    }
    assert check(document)
    document["models"][1]["parameters"]["weight"] = -0.731  # weights that sum to 0 divide nothing
    assert check(document)


def test_what_is_not_a_sum_of_whole_models_is_none() -> None:
    experts = [{"model": name} for name in ("one", "two")]
    rows = {"merge_method": "model_stock", "base_model": "base", "models": experts}
    assert not check({**rows, "parameters": {"filter_wise": True}})
    moved = {"merge_method": "passthrough", "models": [{"model": "one"}]}
    assert check({**moved, "parameters": {"scale": 0.7}})
    assert not check({**moved, "parameters": {"scale": 0.7, "shift": 0.1}})
