"""Recipes that cannot be executed, and how the parameters of the others are resolved."""

from __future__ import annotations

import re

import pytest

from evomerge.errors import RecipeError
from evomerge.merge.methods import METHODS
from evomerge.merge.plan import check_recipe, plan_merge
from evomerge.sources import Structure
from tests.merge.conftest import Document, as_recipe

LAYERS = 3
STRUCTURE = Structure(
    architecture="LlamaForCausalLM",
    depth=LAYERS,
    layer_prefix="model.layers.",
    shapes={
        "model.embed_tokens.weight": (8, 4),
        **{
            f"model.layers.{layer}.{part}.weight": (4, 4)
            for layer in range(LAYERS)
            for part in ("self_attn.q_proj", "mlp.up_proj")
        },
        "model.norm.weight": (4,),
    },
    dtype="float32",
    tied=True,
)


def ties(**changes: object) -> Document:
    models = [{"model": name, "parameters": {"weight": 0.5}} for name in ("a", "b")]
    return {"merge_method": "ties", "base_model": "base", "models": models, **changes}


def with_parameters(**parameters: object) -> Document:
    weighted = {"weight": 0.5, **parameters}
    return ties(models=[{"model": "a", "parameters": weighted}])


REFUSED: dict[str, tuple[Document, str]] = {
    "unknown method": (
        ties(merge_method="tiess"),
        "merge_method: tiess is not known here; did you mean ties?",
    ),
    "method nothing like ours": (
        ties(merge_method="quux"),
        "merge_method: quux is not known here; use one of linear, slerp, task_arithmetic, ties, "
        "dare_ties, dare_linear",
    ),
    "no base": (
        ties(base_model=None),
        "base_model: ties needs it; name the model the others were fine-tuned from",
    ),
    "unknown parameter": (
        with_parameters(wieght=1.0),
        "models.a.parameters.wieght: ties has no such parameter; "
        "it has weight, lambda, normalize, density, rescale",
    ),
    "unknown parameter of the recipe": (
        ties(parameters={"gamma": 0.1}),
        "parameters.gamma: ties has no such parameter; "
        "it has weight, lambda, normalize, density, rescale",
    ),
    "the recipe's parameter on a model": (
        with_parameters(**{"lambda": 1.0}),
        "models.a.parameters.lambda: is one for the whole recipe; "
        "move it to the top-level parameters",
    ),
    "missing weight": (
        ties(models=[{"model": "a"}]),
        "models.a.parameters: weight is missing, which ties needs; add it",
    ),
    "weight missing for some tensors": (
        with_parameters(weight=[{"filter": "mlp", "value": 0.5}]),
        "models.a.parameters.weight: no filter matches model.embed_tokens.weight; "
        "end the list with a value that has no filter",
    ),
    "density above 1": (
        with_parameters(density=1.4),
        "models.a.parameters.density: 1.4 is outside [0, 1]; "
        "give the fraction of parameters to keep (mergekit reads more than 1 as 1)",
    ),
    "density below 0 in a gradient": (
        with_parameters(density=[0.5, -0.1]),
        "models.a.parameters.density: -0.1 is outside [0, 1]; "
        "give the fraction of parameters to keep (mergekit reads more than 1 as 1)",
    ),
    "density out of range under a filter": (
        with_parameters(density=[{"filter": "never", "value": [0.1, 7.0]}]),
        "models.a.parameters.density: 7 is outside [0, 1]; "
        "give the fraction of parameters to keep (mergekit reads more than 1 as 1)",
    ),
    "not a number": (
        with_parameters(density="half"),
        "models.a.parameters.density: half is not a number; "
        "give the fraction of parameters to keep (mergekit reads more than 1 as 1)",
    ),
    "not finite": (
        with_parameters(weight=float("nan")),
        "models.a.parameters.weight: nan is not finite; give a finite number",
    ),
    "not a switch": (
        ties(parameters={"normalize": "perhaps"}),
        "parameters.normalize: perhaps is not a switch; write true or false",
    ),
    "a switch over depth": (
        ties(parameters={"normalize": [0.0, 1.0]}),
        "parameters.normalize: takes no gradient over depth; give one value or filters",
    ),
    "not a choice": (
        ties(parameters={"rescale": "l2"}),
        "parameters.rescale: l2 is not one of l1, density, none",
    ),
    "too many models": (
        {"merge_method": "slerp", "base_model": "base", "models": ties()["models"]},
        "models: slerp takes exactly 2, the base counted, and the recipe names 3",
    ),
    "too few models": (
        {"merge_method": "slerp", "base_model": "base", "models": [{"model": "base"}]},
        "models: slerp takes exactly 2, the base counted, and the recipe names 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_recipe_that_cannot_be_executed_is_refused_in_one_line(case: str) -> None:
    document, message = REFUSED[case]
    document = {key: value for key, value in document.items() if value is not None}
    with pytest.raises(RecipeError, match=f"^{re.escape(message)}$"):
        check_recipe(as_recipe(document), STRUCTURE)


def test_the_base_takes_no_parameters_of_task_vectors_but_weighs_in_an_average() -> None:
    check_recipe(as_recipe(ties()), STRUCTURE)
    average = ties(merge_method="linear")
    with pytest.raises(RecipeError, match=r"models\.base\.parameters: weight is missing"):
        check_recipe(as_recipe(average), STRUCTURE)
    check_recipe(as_recipe({**average, "parameters": {"weight": 1.0}}), STRUCTURE)


def test_what_mergekit_writes_and_ignores_is_read() -> None:
    for method, names in (("task_arithmetic", ("density", "int8_mask")), ("ties", ("int8_mask",))):
        for name in names:
            document = ties(merge_method=method, parameters={name: 1})
            check_recipe(as_recipe(document), STRUCTURE)


def test_values_are_resolved_by_depth_filter_and_scope() -> None:
    document = ties(
        models=[
            {
                "model": "a",
                "parameters": {
                    "weight": [{"filter": "mlp", "value": [0.0, 1.0]}],
                    "density": [0.2, 0.6],
                },
            }
        ],
        parameters={"weight": 3.0, "rescale": True},
    )
    plan = plan_merge(as_recipe(document), STRUCTURE)
    assert (plan.members, plan.base) == (("a", "base"), 1)
    found = {tensor.name: dict(tensor.member_values[0]) for tensor in plan.tensors}
    assert found["model.embed_tokens.weight"] == {"weight": 3.0, "density": 0.2}
    assert found["model.layers.1.self_attn.q_proj.weight"] == {"weight": 3.0, "density": 0.4}
    assert found["model.layers.1.mlp.up_proj.weight"] == {"weight": 0.5, "density": 0.4}
    assert found["model.layers.2.mlp.up_proj.weight"] == {"weight": 1.0, "density": 0.6}
    assert found["model.norm.weight"] == {"weight": 3.0, "density": 0.2}
    recipe_values = plan.tensors[0].recipe_values
    assert recipe_values == {"lambda": 1.0, "normalize": True, "rescale": "l1"}


def test_every_method_says_what_a_search_needs() -> None:
    for name, method in METHODS.items():
        assert method.name == name
        assert re.search(r"\d{4}", method.citation)
        searched = {key: spec.search for key, spec in method.parameters.items() if spec.search}
        assert searched, name
        for key, (low, high) in searched.items():
            spec = method.parameters[key]
            assert spec.kind == "number"
            assert spec.allowed[0] <= low < high <= spec.allowed[1]
