"""Every method that mergekit 0.1.5 has against that package as published, on random checkpoints."""

from __future__ import annotations

import pytest
import torch

from evomerge.merge.methods.registry import METHODS
from tests.merge.conftest import (
    TOLERANCE,
    Document,
    Family,
    Published,
    Tensors,
    make_family,
    worst_difference,
)
from tests.merge.parity_cases import (
    CASES,
    DENSITIES,
    NAMES,
    POSITIVE,
    WEIGHTS,
    experts,
    usual,
)

OF_ITS_OWN = {"fisher", "regmean", "gradient_matching", "iso_c", "tsv"}
"""Methods that mergekit does not have."""


@pytest.mark.parametrize(
    "method", [name for name in METHODS if name not in OF_ITS_OWN and not METHODS[name].random]
)
def test_every_method_equals_mergekit_on_every_architecture(
    architecture: Family, published: Published, method: str
) -> None:
    document = usual(architecture, method)
    ours, theirs = architecture.merge(document), published(document)
    if method == "arcee_fusion":
        assert_fused_alike(architecture, ours, theirs)
    else:
        assert worst_difference(ours, theirs) < TOLERANCE


@pytest.mark.parametrize(
    "method", [name for name in METHODS if name not in OF_ITS_OWN and not METHODS[name].random]
)
def test_every_method_equals_mergekit_over_several_slices(
    architecture: Family, published: Published, method: str
) -> None:
    """Two slices of unequal depth, each with gradients of its own over its layers."""
    document = in_slices(architecture, usual(architecture, method))
    ours, theirs = architecture.merge(document), published(document)
    if method == "arcee_fusion":
        assert_fused_alike(architecture, ours, theirs)
    else:
        assert worst_difference(ours, theirs) < TOLERANCE


def in_slices(family: Family, document: Document) -> Document:
    """The same merge written as slices: the first layer, and the rest."""
    models, base = list(document["models"]), document.get("base_model")
    if base is not None and base not in [entry["model"] for entry in models]:
        models.append({"model": base})
    depth = family.sources[family.base].structure.depth
    ranges = ([0, 1], [1, depth])
    rest = {key: value for key, value in document.items() if key != "models"}
    return {
        **rest,
        "slices": [
            {"sources": [{**entry, "layer_range": layers} for entry in models]} for layers in ranges
        ],
    }


@pytest.mark.parametrize(("method", "case"), NAMES)
def test_special_cases_equal_mergekit(
    family: Family, published: Published, method: str, case: str
) -> None:
    document = {
        "merge_method": method,
        "out_dtype": "float32",
        **CASES[method](family)[case],
    }
    assert worst_difference(family.merge(document), published(document)) < TOLERANCE


def assert_fused_alike(family: Family, ours: Tensors, theirs: Tensors) -> None:
    """Equal but where an importance is within a thousandth of the threshold, on either side.

    mergekit sums the divergence of a row in float32, where it is a small difference of far larger
    terms; that moves importances by up to 5e-4 of themselves here. Ours are float64.
    """
    base, expert = family.tensors(family.base), family.tensors(family.experts[0])
    different = total = 0
    for name, tensor in theirs.items():
        apart = (ours[name] - tensor).abs() > TOLERANCE * tensor.abs().max()
        importance = fusion_importance(base[name].double(), expert[name].double())
        lower, median, upper = quartiles(importance)
        threshold = median + 1.5 * (upper - lower)
        assert bool((apart <= ((importance / threshold - 1.0).abs() < 1e-3)).all()), name
        different += int(apart.count_nonzero())
        total += tensor.numel()
    assert different <= 1e-3 * total


def fusion_importance(base: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
    p, q = (tensor.softmax(dim=-1) + 1e-8 for tensor in (expert, base))
    return (expert - base).abs() * (p * (p / q).log()).sum(dim=-1, keepdim=True)


def quartiles(values: torch.Tensor) -> list[torch.Tensor]:
    ordered = values.flatten().sort().values
    return [ordered[int(share * (values.numel() - 1))] for share in (0.25, 0.5, 0.75)]


def test_slerp_of_nearly_parallel_models_equals_mergekit(
    tmp_path_factory: pytest.TempPathFactory, published: Published
) -> None:
    near = make_family(tmp_path_factory.mktemp("near"), experts=2, scale=1e-4)
    one = {"models": [{"model": near.experts[0]}], "parameters": {"t": 0.36787944}}
    two = {"models": experts(near, 2, weight=POSITIVE)}
    for document in (
        {"merge_method": "slerp", "base_model": near.base, **one},
        {"merge_method": "nuslerp", **two},
        {"merge_method": "nuslerp", **two, "parameters": {"nuslerp_flatten": False}},
        {"merge_method": "multislerp", **two},
    ):
        assert worst_difference(near.merge(document), published(document)) < TOLERANCE


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "slerp"])
def test_bfloat16_equals_mergekit_but_for_rare_roundings(
    bfloat16_family: Family, published: Published, method: str
) -> None:
    family = bfloat16_family
    document = {
        "merge_method": method,
        "base_model": family.base,
        "out_dtype": "bfloat16",
        "models": experts(family, weight=WEIGHTS),
        "parameters": {"weight": 0.31415927},
    }
    if method == "slerp":
        document |= {"models": [{"model": family.experts[0]}], "parameters": {"t": 0.36787944}}
    if method == "task_arithmetic":
        del document["parameters"]
    ours, theirs = family.merge(document), published(document)
    different = total = 0
    for name, tensor in theirs.items():
        assert tensor.dtype == ours[name].dtype == torch.bfloat16
        steps = (ours[name].view(torch.int16).int() - tensor.view(torch.int16).int()).abs()
        # Float32 values that differ in the last bits round apart only beside a bfloat16 midpoint:
        # by one step, and about 2**-15 of the time.
        assert int(steps.max()) <= 1, name
        different += int(steps.count_nonzero())
        total += steps.numel()
    assert different <= 1e-3 * total


@pytest.mark.parametrize("method", ["ties", "breadcrumbs"])
def test_bfloat16_differs_only_at_equal_magnitudes(
    bfloat16_family: Family, published: Published, method: str
) -> None:
    family = bfloat16_family
    document = {
        "merge_method": method,
        "base_model": family.base,
        "out_dtype": "float32",
        "models": experts(family, weight=WEIGHTS, density=DENSITIES),
    }
    ours, theirs = family.merge(document), published(document)
    base = family.tensors(family.base)
    tuned = [family.tensors(expert) for expert in family.experts]
    different = total = 0
    for name, tensor in theirs.items():
        apart = (ours[name] - tensor).abs() > TOLERANCE * tensor.abs().max()
        vectors = [expert[name].float() - base[name].float() for expert in tuned]
        for vector, density in zip(vectors, DENSITIES, strict=True):
            apart &= ~at_places(vector.abs(), bounds(method, vector.numel(), density))
        assert not apart.any(), name
        different += int(((ours[name] - tensor).abs() > 1e-6).count_nonzero())
        total += tensor.numel()
    # Few magnitudes of a bfloat16 difference are distinct; which of the equal ones stay is free.
    assert different < 0.1 * total


def bounds(method: str, count: int, density: float) -> list[int]:
    """Places, in ascending order, of the smallest and the largest magnitude that are kept."""
    kept = int(density * count)
    if method == "ties":
        return [count - max(1, kept)]
    lowest = max(0, count - kept - int(0.01 * count))
    return [lowest, lowest + kept - 1] if kept else []


def at_places(values: torch.Tensor, places: list[int]) -> torch.Tensor:
    """Which elements equal, to a rounding, those at some places of the ascending order."""
    ordered = values.flatten().sort().values
    found = torch.zeros(values.shape, dtype=torch.bool)
    for place in places:
        if place < ordered.numel():
            found |= (values - ordered[place]).abs() <= 1e-6 * ordered[place]
    return found
