"""Recipes that cannot be read, each refused in one line."""

from __future__ import annotations

import pytest

from evomerge.errors import RecipeError
from evomerge.recipe import read_recipe

LAST = "\n{merge_method: linear, models: [{model: a}]}\n"


def named(name: str, model: str) -> str:
    return f"\n{{name: {name}, merge_method: linear, models: [{{model: {model}}}]}}\n---"


def sliced(sources: str) -> str:
    return f"{{merge_method: linear, slices: [{{sources: [{sources}]}}]}}"


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
        ("{merge_method: linear}", "r.yaml: models: missing; name the models to merge"),
        (
            "{merge_method: linear, models: [{model: a}], modules: {x: {models: [{model: a}]}}}",
            "r.yaml: modules: the recipe has models already; keep one of them",
        ),
        (
            "{merge_method: linear, models: [{model: a}], tokenizer_source: a, tokenizer: {}}",
            "r.yaml: tokenizer_source: the recipe has tokenizer already; keep one of them",
        ),
        ("{merge_method: linear, slices: []}", "r.yaml: slices: is empty; "),
        (
            "{merge_method: linear, slices: [{sources: []}]}",
            "r.yaml: slices.0.sources: name at least one model and its layer_range",
        ),
        (
            sliced("{model: a, layer_range: [2, 2]}"),
            "r.yaml: slices.0.sources.0.layer_range: [2, 2] contains no layers; ",
        ),
        (
            sliced("{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 3]}"),
            "r.yaml: slices.0.sources: b gives 3 layers and a 2; give equal numbers",
        ),
        (
            sliced("{model: a, layer_range: [0, 2]}, {model: a, layer_range: [2, 4]}"),
            "r.yaml: slices.0.sources: a is listed twice; list each model once",
        ),
        (
            "{merge_method: linear, slices: [{residual_weight: 0.5, sources: []}]}",
            "r.yaml: slices.0: residual_weight changes nothing in mergekit; remove it",
        ),
        (
            sliced("{model: a, layer_range: [0, 2], merge_method: ties}"),
            "r.yaml: slices.0.sources.0.merge_method: ",
        ),
        (
            "{merge_method: linear, modules: {encoder: {parameters: {}}}}",
            "r.yaml: modules.encoder: give either models or slices",
        ),
        (
            "{merge_method: linear, modules: {x: {merge_method: ties, models: [{model: a}]}}}",
            "r.yaml: modules.x.merge_method: ",
        ),
        (
            "{merge_method: linear, models: [{model: a}], tokenizer: {source: union, pad: 8}}",
            "r.yaml: tokenizer.pad: ",
        ),
        (
            "{merge_method: linear, models: [{model: a}], tokenizer: {tokens: {x: {}}}}",
            "r.yaml: tokenizer.tokens.x.source: missing; add it",
        ),
        (
            "{merge_method: linear, models: [{model: a}], "
            "tokenizer: {tokens: {x: {source: {kind: mean}}}}}",
            "r.yaml: tokenizer.tokens.x.source: write a model, {kind: model_token, ...} or "
            "{kind: zero}",
        ),
        (
            "{base_model: a, gate_mode: hidden, experts: [{source_model: b}]}",
            "r.yaml: experts: belongs to mergekit-moe, which builds a mixture of experts; ",
        ),
        (
            "{genome: {models: [a, b], merge_method: ties}}",
            "r.yaml: genome: belongs to mergekit-evolve; write a job for `evomerge search`",
        ),
        *(
            (text, f"r.yaml{said}")
            for text, said in (
                (named("a", "b") + named("b", "a") + LAST, ": name: a is made of itself; "),
                (named("a", "a") + LAST, ": name: a is made of itself; break the circle"),
                (named("a", "x") * 2 + LAST, ": name: a is given twice; name each document once"),
                (LAST + "---" + LAST, ": 2 of its documents are without a `name`; leave it out"),
                (named("a/b", "x") + LAST, ", document 1: name: a/b: give a plain word"),
                (named("[a]", "x") + LAST, ", document 1: name: ['a']: give a plain word"),
                (named("a", "x") + "\ntyes", ": expected a mapping with merge_method and models"),
                ("", ": expected a mapping with merge_method and models"),
            )
        ),
        (
            "{merge_method: linear, models: [{model: a}], name: first}",
            "r.yaml: none of its documents is without a `name`; leave it out of exactly one",
        ),
        (
            "merge_method: linear\nmodels: [{model: a}]\n---\nmerge_method: linear\n",
            "r.yaml, document 2: models: missing; ",
        ),
        ("{merge_method: linear, models: [{model: a}], weigth: 1}", "r.yaml: weigth: "),
        (
            "{merge_method: linear, models: [{model: a, parameters: {weight: {a: 1}}}]}",
            "r.yaml: models.0.parameters.weight: ",
        ),
        *(
            (
                f"{{merge_method: linear, models: [{{model: a}}], evomerge: {{seed: {seed}}}}}",
                f"r.yaml: evomerge.seed: {said} is not a whole number from 0; write one, or remove",
            )
            for seed, said in (
                ("null", "nothing"),
                ("seven", "seven"),
                ("1.5", "1.5"),
                ("-1", "-1"),
                ("true", "True"),
                ("[1]", "[1]"),
            )
        ),
        (
            "{merge_method: linear, models: [{model: a}], 'models[0]': 1}",
            "r.yaml: models[0]: no such key",
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
