"""Recipes: what is read, what is written, and that parameters resolve as mergekit's do."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mergekit.config import ConditionalParameter, MergeConfiguration, evaluate_setting

from evomerge.errors import RecipeError
from evomerge.recipe import Condition, Recipe, RecipeModel, Setting, read_recipe, resolve

DOCUMENT = """
merge_method: dare_ties
base_model: models/base
models:
  - model: models/base
  - model: org/japanese@main
    parameters:
      weight: [0.1, 0.7000000000000001, 1e-07]
      density: 0.53
  - model: models/arithmetic
    parameters:
      weight:
        - {filter: self_attn, value: [0.25, 0.75]}
        - {filter: mlp, value: 1}
        - value: 0.123456789012345678
parameters:
  lambda: 1.1
  normalize: true
dtype: float32
out_dtype: bfloat16
tokenizer_source: base
evomerge:
  seed: 7
  genome: [0.1, 0.30000000000000004]
  note: 日本語
"""

numbers = st.floats(-1e6, 1e6, allow_nan=False)
gradients = st.lists(numbers, min_size=1, max_size=5).map(tuple)
conditions = st.builds(
    Condition,
    filter=st.sampled_from([None, "*", "mlp", "self_attn", "layers.1.", "never"]),
    value=st.one_of(numbers, gradients),
)
setting = st.one_of(numbers, gradients, st.lists(conditions, min_size=1, max_size=4).map(tuple))
tensor_names = st.sampled_from(
    [
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.3.self_attn.q_proj.weight",
        "lm_head.weight",
    ]
)


def as_mergekit(value: Setting) -> Any:
    if not isinstance(value, tuple):
        return value
    return [
        ConditionalParameter(value=as_mergekit(part.value), filter=part.filter)
        if isinstance(part, Condition)
        else part
        for part in value
    ]


@given(value=setting, tensor_name=tensor_names, layer=st.integers(0, 6))
def test_a_setting_resolves_as_in_mergekit(value: Setting, tensor_name: str, layer: int) -> None:
    depth = layer / 6
    ours = resolve(value, tensor_name=tensor_name, depth=depth)
    theirs = evaluate_setting(tensor_name, as_mergekit(value), depth, validate=float)
    assert ours == theirs  # the same float operations, so equal to the last bit


models = st.lists(
    st.builds(
        RecipeModel,
        model=st.text("abc/日@.-", min_size=1, max_size=6),
        parameters=st.dictionaries(st.sampled_from(["weight", "density"]), setting, max_size=2),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda entry: entry.model,
)


@given(
    recipe=st.builds(
        Recipe,
        merge_method=st.sampled_from(["linear", "ties"]),
        base_model=st.one_of(st.none(), st.just("base")),
        models=models.map(tuple),
        parameters=st.dictionaries(st.sampled_from(["lambda", "t"]), setting, max_size=2),
        out_dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
        evomerge=st.dictionaries(st.just("seed"), st.integers(0, 2**32), max_size=1),
    )
)
def test_a_recipe_reads_back_equal(recipe: Recipe) -> None:
    assert read_recipe(recipe.to_yaml(), where="r.yaml") == recipe


def test_a_document_is_read_and_written_again() -> None:
    recipe = read_recipe(DOCUMENT, where="r.yaml")
    assert recipe.references == ("models/base", "org/japanese@main", "models/arithmetic")
    assert recipe.seed == 7
    assert recipe.out_dtype == "bfloat16"
    again = read_recipe(recipe.to_yaml(), where="again")
    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()
    assert "日本語" in recipe.to_yaml()


def test_what_is_written_is_valid_for_mergekit() -> None:
    recipe = read_recipe(DOCUMENT, where="r.yaml")
    theirs = MergeConfiguration.model_validate(yaml.safe_load(recipe.to_yaml()))
    assert theirs.merge_method == "dare_ties"
    assert (theirs.dtype, theirs.out_dtype) == ("float32", "bfloat16")
    assert theirs.models is not None
    for ours, entry in zip(recipe.models, theirs.models, strict=True):
        for name, value in ours.parameters.items():
            assert entry.parameters is not None
            for layer in range(5):
                tensor = f"model.layers.{layer}.mlp.up_proj.weight"
                assert resolve(value, tensor_name=tensor, depth=layer / 4) == evaluate_setting(
                    tensor, entry.parameters[name], layer / 4, validate=float
                )


def test_the_models_own_parameters_come_before_the_recipes() -> None:
    recipe = Recipe(
        merge_method="ties",
        models=(
            RecipeModel(model="a", parameters={"weight": (Condition(filter="mlp", value=2.0),)}),
            RecipeModel(model="b"),
        ),
        parameters={"weight": 1.0},
    )

    def weight(model: str | None, tensor_name: str) -> object:
        return recipe.setting_of("weight", model=model, tensor_name=tensor_name, depth=0.0)

    assert weight("a", "x.mlp.y") == 2.0
    assert weight("a", "x.attn.y") == 1.0  # no filter matches: the next scope decides
    assert weight("b", "x.mlp.y") == 1.0
    assert weight(None, "x.mlp.y") == 1.0
    assert recipe.setting_of("density", model="a", tensor_name="x", depth=0.0) is None


def test_the_dtype_of_others_recipes_is_what_they_store() -> None:
    text = "{merge_method: linear, models: [{model: a}], dtype: bfloat16}"
    recipe = read_recipe(text, where="r.yaml")
    assert (recipe.dtype, recipe.out_dtype) == ("float32", "bfloat16")
    unsaid = read_recipe("{merge_method: linear, models: [{model: a}]}", where="r.yaml")
    assert unsaid.out_dtype is None


def test_facts_are_added_to_our_block_and_nothing_else() -> None:
    recipe = read_recipe(DOCUMENT, where="r.yaml")
    more = recipe.with_block(scores={"task": 0.5})
    assert more.evomerge == {**recipe.evomerge, "scores": {"task": 0.5}}
    assert more.model_copy(update={"evomerge": recipe.evomerge}) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("merge_method: [", "r.yaml: not YAML"),
        ("- a\n- b", "r.yaml: expected a mapping with merge_method and models"),
        ("{merge_method: linear}", "r.yaml: models: "),
        ("{merge_method: linear, models: []}", "r.yaml: models: name at least one model"),
        (
            "{merge_method: linear, models: [{model: a}, {model: a}]}",
            "r.yaml: models: a is listed twice; list each model once",
        ),
        (
            "{merge_method: linear, slices: [{sources: []}]}",
            "r.yaml: slices: merges by slices of layers is not supported; write it with `models`",
        ),
        ("{merge_method: linear, models: [{model: a}], weigth: 1}", "r.yaml: weigth: "),
        (
            "{merge_method: linear, models: [{model: a, parameters: {weight: {a: 1}}}]}",
            "r.yaml: models.0.parameters.weight: ",
        ),
        (
            "{merge_method: linear, models: [{model: a}], out_dtype: int8}",
            "r.yaml: out_dtype: ",
        ),
    ],
)
def test_a_recipe_that_cannot_be_read_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(text, where="r.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
