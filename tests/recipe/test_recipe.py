"""Recipes: what is read, what is written, and that parameters resolve as mergekit's do."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mergekit.config import ConditionalParameter, MergeConfiguration, evaluate_setting

from evomerge.recipe import (
    Condition,
    ModelToken,
    Module,
    Recipe,
    RecipeModel,
    Setting,
    Slice,
    SliceSource,
    TokenizerSpec,
    TokenSpec,
    ZeroToken,
    read_recipe,
    resolve,
)

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


names = st.text("abc/日@.-", min_size=1, max_size=6)
model_parameters = st.dictionaries(st.sampled_from(["weight", "density"]), setting, max_size=2)
recipe_parameters = st.dictionaries(st.sampled_from(["lambda", "t"]), setting, max_size=2)
models = st.lists(
    st.builds(RecipeModel, model=names, parameters=model_parameters),
    min_size=1,
    max_size=3,
    unique_by=lambda entry: entry.model,
).map(tuple)


@st.composite
def slices(draw: st.DrawFn) -> tuple[Slice, ...]:
    made = []
    for _ in range(draw(st.integers(1, 3))):
        count = draw(st.integers(1, 4))
        sources = []
        for model in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
            first = draw(st.integers(0, 9))
            sources.append(
                SliceSource(
                    model=model,
                    layer_range=(first, first + count),
                    parameters=draw(model_parameters),
                )
            )
        base = draw(st.one_of(st.none(), names))
        made.append(
            Slice(sources=tuple(sources), base_model=base, parameters=draw(recipe_parameters))
        )
    return tuple(made)


modules = st.dictionaries(
    st.sampled_from(["encoder", "decoder", "model.visual"]),
    st.one_of(
        st.builds(Module, models=models, parameters=recipe_parameters),
        st.builds(Module, slices=slices(), parameters=recipe_parameters),
    ),
    min_size=1,
)
token_sources = st.one_of(
    names,
    st.just(ZeroToken()),
    st.builds(ModelToken, model=names, token_id=st.integers(0, 9)),
    st.builds(ModelToken, model=names, token=st.text(min_size=1)),
)
tokenizers = st.builds(
    TokenizerSpec,
    source=st.one_of(st.sampled_from(["union", "base"]), names),
    tokens=st.dictionaries(
        st.text(), st.builds(TokenSpec, source=token_sources, force=st.booleans()), max_size=2
    ),
    pad_to_multiple_of=st.one_of(st.none(), st.integers(1, 64)),
)
merged = st.one_of(
    models.map(lambda value: {"models": value}),
    slices().map(lambda value: {"slices": value}),
    modules.map(lambda value: {"modules": value}),
)
tokenized = st.one_of(
    st.just({}),
    names.map(lambda value: {"tokenizer_source": value}),
    tokenizers.map(lambda value: {"tokenizer": value}),
)


@given(
    recipe=st.builds(
        lambda merged, tokenized, **fields: Recipe(**merged, **tokenized, **fields),
        merged=merged,
        tokenized=tokenized,
        merge_method=st.sampled_from(["linear", "ties"]),
        base_model=st.one_of(st.none(), st.just("base")),
        parameters=recipe_parameters,
        chat_template=st.one_of(st.none(), st.just("auto"), st.just("{% if x %}\n---\n{{ y }}")),
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


SLICED = """
merge_method: slerp
base_model: models/base
slices:
  - sources:
      - {model: models/base, layer_range: [0, 12]}
      - model: org/expert@v2
        layer_range: [4, 16]
        parameters:
          scale: {filter: o_proj, value: [0.5, 0.75]}
    parameters: {t: [0, 0.25, 1e-3]}
  - sources:
      - {model: models/base, layer_range: [12, 13], parameters: null}
      - {model: org/expert@v2, layer_range: [12, 13]}
    base_model: org/expert@v2
parameters:
  t:
    - {filter: self_attn, value: 0.3}
    - value: 0.7
tokenizer:
  source: union
  tokens:
    <zero>: {source: {kind: zero}}
    <copy>: {source: {kind: model_token, model: models/base, token: the}, force: true}
    <id>: {source: {kind: model_token, model: models/base, token_id: 0}}
    <own>: {source: org/expert@v2}
  pad_to_multiple_of: 64
chat_template: chatml
dtype: float32
out_dtype: float16
"""

MODULAR = """
merge_method: task_arithmetic
base_model: t5
modules:
  encoder:
    slices:
      - sources: [{model: t5, layer_range: [0, 2]}, {model: a, layer_range: [0, 2]}]
    parameters: {weight: 0.5, lambda: 1.25}
  decoder:
    models: [{model: a, parameters: {weight: [0.5, 0.25]}}, {model: b}]
  shared:
    models: [{model: a}]
parameters: {weight: 1}
dtype: float32
out_dtype: float32
"""


@pytest.mark.parametrize("text", [DOCUMENT, SLICED, MODULAR])
def test_mergekit_reads_what_is_written_as_it_reads_the_original(text: str) -> None:
    again = read_recipe(text, where="r.yaml").to_yaml()
    original, written = (
        MergeConfiguration.model_validate(yaml.safe_load(document)) for document in (text, again)
    )
    assert as_read(written) == as_read(original)


def as_read(configuration: MergeConfiguration) -> Any:
    """What a configuration says, without what is not there and with numbers as numbers."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            if "value" in value and "filter" in value:  # one condition is a list of one
                return [{"filter": value["filter"], "value": plain(value["value"])}]
            said = {key: plain(part) for key, part in value.items()}
            return {key: part for key, part in said.items() if part not in (None, {})}
        if isinstance(value, list):
            parts = [plain(part) for part in value]
            nested = [part for part in parts if isinstance(part, list)]
            return [part[0] for part in nested] if nested and len(nested) == len(parts) else parts
        if isinstance(value, str):  # YAML 1.1 takes 1e-3 for a text
            try:
                return float(value)
            except ValueError:
                return value
        return value

    return plain(configuration.model_dump(mode="json"))


def test_slices_are_read() -> None:
    recipe = read_recipe(SLICED, where="r.yaml")
    assert recipe.models == ()
    assert recipe.slices is not None
    assert [piece.count for piece in recipe.slices] == [12, 1]
    first, second = recipe.slices
    assert first.sources[1].layer_range == (4, 16)
    assert first.sources[1].parameters == {
        "scale": (Condition(filter="o_proj", value=(0.5, 0.75)),)
    }
    assert first.parameters == {"t": (0.0, 0.25, 0.001)}
    assert second.base_model == "org/expert@v2"
    assert recipe.references == ("models/base", "org/expert@v2")
    assert recipe.tokenizer is not None
    assert recipe.tokenizer.pad_to_multiple_of == 64
    assert recipe.tokenizer.tokens["<zero>"].source == ZeroToken()
    assert recipe.tokenizer.tokens["<copy>"].force
    assert recipe.tokenizer.tokens["<own>"].source == "org/expert@v2"
    assert recipe.chat_template == "chatml"


def test_the_base_comes_first_among_the_models() -> None:
    text = "{merge_method: ties, base_model: c, models: [{model: a}, {model: c}, {model: b}]}"
    assert read_recipe(text, where="r.yaml").references == ("c", "a", "b")


def test_modules_are_read() -> None:
    recipe = read_recipe(MODULAR, where="r.yaml")
    assert recipe.modules is not None
    assert list(recipe.modules) == ["encoder", "decoder", "shared"]
    assert recipe.modules["encoder"].slices is not None
    assert recipe.modules["decoder"].models[0].parameters == {"weight": (0.5, 0.25)}
    assert recipe.references == ("t5", "a", "b")


def test_a_model_whose_path_has_a_space_is_read_as_mergekit_writes_it() -> None:
    text = """
    merge_method: linear
    models:
      - model: {model: {path: my models/a, revision: r}, lora: {path: b c}}
      - model: {model: {path: d e}}
    """
    references = read_recipe(text, where="r.yaml").references
    assert references == ("my models/a@r+b c", "d e")
    theirs = MergeConfiguration.model_validate(yaml.safe_load(text)).models
    assert theirs is not None
    assert [str(entry.model) for entry in theirs] == list(references)


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
    "text", ["\x85", "a\u2028b", "\u2029 " * 60, "{% if x %}\n---\n...\n{{ y }}"]
)
def test_every_text_reads_back_as_it_was_written(text: str) -> None:
    recipe = Recipe(
        merge_method="linear",
        models=(RecipeModel(model="a"),),
        tokenizer=TokenizerSpec(tokens={text: TokenSpec(source=ZeroToken())}),
        chat_template=text,
    )
    assert read_recipe(recipe.to_yaml(), where="again") == recipe


def test_a_copy_with_changes_is_written_with_them() -> None:
    recipe = Recipe(merge_method="linear", models=(RecipeModel(model="a"),))
    before = recipe.to_yaml()
    changed = recipe.model_copy(update={"out_dtype": "bfloat16"})
    assert "out_dtype: bfloat16" in changed.to_yaml()
    assert recipe.to_yaml() == before
    unwritten = Recipe(merge_method="linear", models=(RecipeModel(model="a"),))
    assert recipe == unwritten
    assert pickle.loads(pickle.dumps(recipe)) == unwritten
