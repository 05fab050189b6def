"""Every method against mergekit 0.1.5 as published, on random checkpoints."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.merge.conftest import Document, Family, Tensors, make_family

# No simple fractions: with those, sums of bfloat16 values land exactly between two others.
WEIGHTS = (0.36787944, 0.51328571, -0.22817391)
DENSITIES = (0.41, 0.67, 0.13)
Published = Callable[[Document], Tensors]

# Largest difference allowed over the largest value of the tensor. Both sides round each product
# and sum to float32, in different orders and (slerp, rescale) from sums of different precision.
TOLERANCE = 1e-6


def worst_difference(ours: Tensors, theirs: Tensors) -> float:
    assert sorted(ours) == sorted(theirs)
    for name, tensor in theirs.items():
        assert ours[name].shape == tensor.shape
        assert ours[name].dtype == tensor.dtype
    return max(
        float((ours[name] - tensor).abs().max() / tensor.abs().max())
        for name, tensor in theirs.items()
    )


def experts(family: Family, count: int = 3, **parameters: list[object]) -> list[Document]:
    return [
        {"model": model, "parameters": {name: values[i] for name, values in parameters.items()}}
        for i, model in enumerate(family.experts[:count])
    ]


def with_filters(values: list[float], other: float) -> list[Document]:
    return [
        {"filter": "self_attn", "value": values},
        {"filter": "mlp.down", "value": 0.91},
        {"value": other},
    ]


def linear_cases(family: Family) -> dict[str, Document]:
    weighted = experts(family, weight=list(WEIGHTS))
    return {
        "weights": {"models": weighted},
        "not normalized": {"models": weighted, "parameters": {"normalize": False}},
        "base listed": {
            "base_model": family.base,
            "models": [{"model": family.base, "parameters": {"weight": 0.77}}, *weighted],
        },
        "base not listed takes the recipe's weight": {
            "base_model": family.base,
            "models": weighted,
            "parameters": {"weight": 0.29},
        },
        "gradients": {
            "models": experts(family, weight=[[0.1, 0.9, 0.3], [0.7, 0.2], [0.4]]),
        },
        "filters": {
            "models": experts(family, weight=[with_filters([0.1, 0.8], 0.31), 0.6, 0.2]),
        },
        "a filter that matches nothing falls to the recipe": {
            "models": experts(
                family,
                weight=[[{"filter": "mlp", "value": 0.9}], 0.6, [{"filter": "?", "value": 7}]],
            ),
            "parameters": {"weight": [{"filter": "q_proj", "value": [0.2, 0.6]}, {"value": 0.33}]},
        },
    }


def slerp_cases(family: Family) -> dict[str, Document]:
    one = [{"model": family.experts[0]}]
    t = {"t": 0.36787944}
    return {
        "t": {"models": one, "parameters": t},
        "base listed first": {"models": [{"model": family.base}, *one], "parameters": t},
        "base listed last": {"models": [*one, {"model": family.base}], "parameters": t},
        "gradient": {"models": one, "parameters": {"t": [0.0, 0.21, 1.0]}},
        "filters": {"models": one, "parameters": {"t": with_filters([0.9, 0.1], 0.43)}},
        "beyond the other": {"models": one, "parameters": {"t": 1.4}},
    }


def task_vector_cases(family: Family) -> dict[str, Document]:
    weighted = experts(family, weight=list(WEIGHTS), density=list(DENSITIES))
    gradients = experts(
        family, weight=[[0.1, 0.9, 0.3], [0.7, 0.2], [0.4]], density=[[0.2, 0.9], 0.5, [0.3, 0.6]]
    )
    filters = experts(
        family, weight=[with_filters([0.1, 0.8], 0.31), 0.6, 0.2], density=list(DENSITIES)
    )
    listed = {"model": family.base, "parameters": {"weight": 0.9, "density": 0.5}}
    return {
        "weights": {"models": weighted},
        "one model": {"models": weighted[:1]},
        "two models": {"models": weighted[:2]},
        "lambda": {"models": weighted, "parameters": {"lambda": 1.37}},
        "normalized": {"models": weighted, "parameters": {"normalize": True}},
        "not normalized": {"models": weighted, "parameters": {"normalize": False}},
        "base listed": {"models": [listed, *weighted]},
        "mask in int8": {"models": weighted, "parameters": {"int8_mask": True}},
        "gradients": {"models": gradients, "parameters": {"lambda": [0.7, 1.3]}},
        "filters": {"models": filters},
        "rescaled": {"models": weighted, "parameters": {"rescale": True}},
        "nothing kept of one": {
            "models": experts(family, weight=[0.5, 0.3], density=[0.0, 0.4], count=2)
        },
        "all kept": {"models": experts(family, weight=list(WEIGHTS))},
        "weights that cancel": {
            "models": experts(family, weight=[0.3, -0.3], density=[0.5, 0.5], count=2),
            "parameters": {"normalize": True},
        },
    }


LINEAR = list(linear_cases(Family("b", ("1", "2", "3"), {})))
SLERP = list(slerp_cases(Family("b", ("1", "2", "3"), {})))
TASK_VECTORS = list(task_vector_cases(Family("b", ("1", "2", "3"), {})))


@pytest.mark.parametrize("case", LINEAR)
def test_linear_equals_mergekit(family: Family, published: Published, case: str) -> None:
    document = {"merge_method": "linear", "out_dtype": "float32", **linear_cases(family)[case]}
    assert worst_difference(family.merge(document), published(document)) < TOLERANCE


@pytest.mark.parametrize("case", SLERP)
def test_slerp_equals_mergekit(family: Family, published: Published, case: str) -> None:
    document = {"merge_method": "slerp", "base_model": family.base, **slerp_cases(family)[case]}
    assert worst_difference(family.merge(document), published(document)) < TOLERANCE


def test_slerp_of_nearly_parallel_models_equals_mergekit(
    tmp_path_factory: pytest.TempPathFactory, published: Published
) -> None:
    near = make_family(tmp_path_factory.mktemp("near"), experts=1, scale=1e-4)
    document = {
        "merge_method": "slerp",
        "base_model": near.base,
        "models": [{"model": near.experts[0]}],
        "parameters": {"t": 0.36787944},
    }
    assert worst_difference(near.merge(document), published(document)) < TOLERANCE


@pytest.mark.parametrize("case", TASK_VECTORS)
@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_task_vector_methods_equal_mergekit(
    family: Family, published: Published, method: str, case: str
) -> None:
    document = {
        "merge_method": method,
        "base_model": family.base,
        **task_vector_cases(family)[case],
    }
    assert worst_difference(family.merge(document), published(document)) < TOLERANCE


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize("case", ["all kept", "nothing kept of one"])
def test_dare_equals_mergekit_where_nothing_is_drawn(
    family: Family, published: Published, method: str, case: str
) -> None:
    models = {
        "all kept": experts(family, weight=list(WEIGHTS)),
        "nothing kept of one": experts(family, weight=[0.5, 0.3], density=[0.0, 1.0], count=2),
    }[case]
    document = {"merge_method": method, "base_model": family.base, "models": models}
    assert worst_difference(family.merge(document), published(document)) < TOLERANCE


@pytest.mark.parametrize("shape", [{"layers": 1}, {"tied": True}, {"layers": 3, "tied": True}])
def test_other_shapes_of_model_equal_mergekit(
    tmp_path_factory: pytest.TempPathFactory, published: Published, shape: dict[str, int]
) -> None:
    other = make_family(tmp_path_factory.mktemp("shape"), experts=2, **shape)
    document = {
        "merge_method": "ties",
        "base_model": other.base,
        "models": experts(other, weight=[[0.2, 0.9], 0.3], density=[[0.8, 0.2], 0.5], count=2),
    }
    assert worst_difference(other.merge(document), published(document)) < TOLERANCE


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "slerp"])
def test_bfloat16_equals_mergekit_but_for_rare_roundings(
    bfloat16_family: Family, published: Published, method: str
) -> None:
    family = bfloat16_family
    document = {
        "merge_method": method,
        "base_model": family.base,
        "out_dtype": "bfloat16",
        "models": experts(family, weight=list(WEIGHTS)),
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


def test_ties_of_bfloat16_differs_only_at_equal_magnitudes(
    bfloat16_family: Family, published: Published
) -> None:
    family = bfloat16_family
    document = {
        "merge_method": "ties",
        "base_model": family.base,
        "out_dtype": "float32",
        "models": experts(family, weight=list(WEIGHTS), density=list(DENSITIES)),
    }
    ours, theirs = family.merge(document), published(document)
    base = family.tensors(family.base)
    tuned = [family.tensors(expert) for expert in family.experts]
    different = total = 0
    for name, tensor in theirs.items():
        apart = (ours[name] - tensor).abs() > TOLERANCE * tensor.abs().max()
        at_threshold = torch.zeros_like(apart)
        for expert, density in zip(tuned, DENSITIES, strict=True):
            size = (expert[name].float() - base[name].float()).abs()
            kept = (
                size.flatten().sort(descending=True).values[: max(1, int(density * size.numel()))]
            )
            at_threshold |= size == kept[-1]
        assert not (apart & ~at_threshold).any(), name
        different += int(apart.count_nonzero())
        total += tensor.numel()
    # Few magnitudes of a bfloat16 difference are distinct; which of the equal ones stay is free.
    assert different < 0.05 * total
