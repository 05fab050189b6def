"""Recipes of several documents: named merges that the last one is made of."""

from __future__ import annotations

from typing import Any

import pytest
from mergekit.scripts.multimerge import load_config

from evomerge.recipe import Recipe, RecipeModel, read_recipe

STAGED = """
name: deep
merge_method: passthrough
slices:
  - sources: [{model: blend, layer_range: [0, 3]}]
  - sources: [{model: org/third, layer_range: [2, 4]}]
---
name: blend
merge_method: dare_ties
base_model: org/base
models: [{model: org/first, parameters: {weight: 0.5, density: 0.7}}]
dtype: float32
out_dtype: bfloat16
evomerge: {seed: 5}
---
merge_method: linear
models: [{model: org/first}, {model: deep}]
parameters: {weight: 0.5}
tokenizer_source: tokens
evomerge: {note: last}
---
name: unused
merge_method: linear
models: [{model: org/never}]
---
name: tokens
merge_method: linear
models: [{model: org/fourth}]
parameters: {weight: 1}
"""


def test_named_documents_become_stages_each_after_those_it_uses() -> None:
    recipe = read_recipe(STAGED, where="r.yaml")
    assert list(recipe.stages) == ["blend", "deep", "tokens"]
    assert recipe.references == ("org/first", "deep")
    assert recipe.checkpoints == ("org/base", "org/first", "org/third", "org/fourth")
    assert recipe.stages["blend"].seed == 5
    assert (recipe.seed, recipe.evomerge) == (0, {"note": "last"})
    assert [stage.out_dtype for stage in recipe.stages.values()] == ["bfloat16", None, None]


def test_a_recipe_of_stages_reads_back_equal() -> None:
    recipe = read_recipe(STAGED, where="r.yaml")
    again = read_recipe(recipe.to_yaml(), where="again")
    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()


def test_mergekit_s_command_for_several_documents_reads_what_is_written() -> None:
    text = read_recipe(STAGED, where="r.yaml").to_yaml()
    documents, uses = load_config(text, "stages")
    assert uses == {"blend": set(), "deep": {"blend"}, "tokens": set(), None: {"deep", "tokens"}}
    assert documents["blend"].out_dtype == "bfloat16"
    assert documents["deep"].slices is not None


def test_stages_that_nothing_uses_are_neither_written_nor_counted() -> None:
    whole = read_recipe(STAGED, where="r.yaml")
    last = Recipe(merge_method="linear", models=(RecipeModel(model="blend"),))
    recipe = last.model_copy(update={"stages": whole.stages})
    assert list(recipe.used_stages) == ["blend"]
    assert recipe.checkpoints == ("org/base", "org/first")
    assert list(read_recipe(recipe.to_yaml(), where="again").stages) == ["blend"]


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ({"a": {"b": "x"}, "b": {}}, "stages.a: names b, which does not come before it"),
        ({"a": {"a": "x"}}, "stages.a: names a, which does not come before it"),
    ],
)
def test_a_stage_names_only_those_before_it(stages: dict[str, Any], said: str) -> None:
    made = {
        name: Recipe(merge_method="linear", models=tuple(map(of_model, [*uses, "org/x"])))
        for name, uses in stages.items()
    }
    with pytest.raises(ValueError, match=said):
        Recipe(merge_method="linear", models=(of_model("a"),), stages=made)


def test_a_stage_has_no_stages_of_its_own() -> None:
    whole = read_recipe(STAGED, where="r.yaml")
    with pytest.raises(
        ValueError, match=r"stages\.a\.stages: cannot be nested; put them before this stage"
    ):
        Recipe(merge_method="linear", models=(of_model("a"),), stages={"a": whole})


def of_model(model: str) -> RecipeModel:
    return RecipeModel(model=model)
