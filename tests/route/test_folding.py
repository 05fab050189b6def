"""Folded routes are plain checkpoints that compute what the scaled run computes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import yaml
from mergekit.config import MergeConfiguration
from transformers import AutoConfig

from evomerge.errors import RecipeError
from evomerge.merge.engine import MergeEngine
from evomerge.recipe import Recipe, Stretch, read_recipe
from evomerge.route import fold, published
from evomerge.sources import Stack, Structure
from tests.checkpoints import load_tensors
from tests.route.foldable import CONFIGS, Pair, load, logits_of, recipe_of, save_pair, tokens

ROUTES: Mapping[str, tuple[tuple[str, int, float], ...]] = {
    "positive": (
        ("a", 0, 1.0), ("a", 1, 1.6), ("b", 1, 0.7), ("a", 1, 1.0), ("b", 2, 1.0), ("a", 2, 1.3),
    ),
    "negative to the end": (
        ("a", 0, -1.3), ("a", 1, 1.0), ("b", 1, 1.2), ("b", 2, 1.0), ("b", 0, 0.9),
    ),
    "negative in the middle": (
        ("a", 0, 1.0), ("b", 1, -1.6), ("b", 2, 1.0), ("a", 0, 0.8), ("a", 1, -0.9), ("a", 2, 1.0),
    ),
}  # fmt: skip
"""Two models, with layers repeated and left out."""

EPSILON = 1e-14
"""Of norms that are exact to float32."""

EXACT = 1e-5
"""Of the largest logit, with such norms: roundings of float32 through six layers; seen 3e-6."""

USUAL = 3e-5
"""Of the largest logit, with norms as configured: their epsilon, to 1e-5 here, is added to the mean
square of the stream on the route and to that of the stream over s in the folded model."""


@pytest.fixture(scope="module", params=CONFIGS)
def exact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Two models of an architecture whose norms have next to no epsilon."""
    folder = tmp_path_factory.mktemp("exact")
    return save_pair(folder, CONFIGS[request.param], epsilon=EPSILON)


@pytest.fixture(scope="module")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return save_pair(tmp_path_factory.mktemp("llamas"), CONFIGS["llama"])


@pytest.fixture(scope="module")
def gemmas(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return save_pair(tmp_path_factory.mktemp("gemmas"), CONFIGS["gemma2"])


def assert_same_model(pair: Pair, route: str, tolerance: float) -> None:
    hops = pair.hops(*ROUTES[route])
    folded = load(pair.write(recipe_of(hops), f"folded, {route}"))
    reference = pair.reference(hops, f"unscaled, {route}")
    ours, theirs = logits_of(folded), logits_of(reference)
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))
    said = [
        model.generate(tokens(), max_new_tokens=6, do_sample=False, pad_token_id=0)
        for model in (folded, reference)
    ]
    assert torch.equal(*said)


@pytest.mark.parametrize("route", ROUTES)
def test_a_folded_route_computes_what_the_scaled_run_does(exact: Pair, route: str) -> None:
    assert_same_model(exact, route, EXACT)


@pytest.mark.parametrize("name", CONFIGS)
def test_an_usual_epsilon_changes_little(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    pair = save_pair(tmp_path_factory.mktemp("usual"), CONFIGS[name])
    assert_same_model(pair, "negative in the middle", USUAL)


@pytest.mark.parametrize("name", ["gemma2", "qwen2"])
def test_the_configuration_says_the_depth_and_the_kind_of_every_layer(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    pair = save_pair(tmp_path_factory.mktemp("kinds"), CONFIGS[name])
    hops = pair.hops(("a", 0, 1.0), ("b", 0, 1.5), ("b", 1, 1.0), ("a", 1, 0.5), ("b", 2, 1.0))
    config = AutoConfig.from_pretrained(pair.write(recipe_of(hops), "folded"))
    assert config.num_hidden_layers == 5
    kinds = ["sliding", "sliding", "full", "full", "sliding"]
    assert config.layer_types == [f"{kind}_attention" for kind in kinds]


def test_embeddings_come_from_the_first_model_and_the_head_from_the_last(llamas: Pair) -> None:
    folder = llamas.write(recipe_of(llamas.hops(("a", 0, 1.5), ("b", 2, -2.0))), "ends")
    folded, a, b = (load_tensors(path) for path in (folder, llamas.a.folder, llamas.b.folder))
    assert torch.equal(folded["model.embed_tokens.weight"], a["model.embed_tokens.weight"])
    assert torch.equal(folded["lm_head.weight"], b["lm_head.weight"])
    assert torch.equal(folded["model.norm.weight"], -b["model.norm.weight"])


def test_layers_that_follow_each_other_at_one_scale_are_one_slice(llamas: Pair) -> None:
    a, b = llamas.a.reference, llamas.b.reference
    hops = llamas.hops(
        ("a", 0, 2.0), ("a", 1, 1.0), ("a", 2, 1.0), ("b", 0, 1.0), ("b", 1, 0.5), ("b", 2, 1.0)
    )
    folded = fold(recipe_of(hops), llamas.structures)
    sources = [piece.sources[0] for piece in folded.slices or ()]
    assert [(source.model, source.layer_range) for source in sources] == [
        (a, (0, 3)), (b, (0, 1)), (b, (1, 3))
    ]  # fmt: skip
    assert [bool(source.parameters) for source in sources] == [True, True, False]
    again = Recipe(
        merge_method="passthrough",
        route=(Stretch(model=a, layers=(0, 1)), Stretch(model=a, layers=(1, 3))),
    )
    assert len(fold(again, llamas.structures).slices or ()) == 1


def test_the_rest_of_the_recipe_is_kept(llamas: Pair) -> None:
    stage = Recipe.model_validate({"merge_method": "linear", "models": [{"model": "x"}]})
    recipe = recipe_of(
        llamas.hops(("a", 0, 2.0)),
        out_dtype="bfloat16",
        tokenizer={"source": llamas.b.reference},
        chat_template="chatml",
        evomerge={"seed": 3},
        stages={"one": stage},
    )
    folded = fold(recipe, llamas.structures)
    assert folded.slices and folded.route is None
    assert folded.model_copy(update={"slices": None, "route": recipe.route}) == recipe
    assert fold(folded, llamas.structures) is folded


def test_the_engine_makes_the_same_bytes_of_the_route_and_of_its_slices(gemmas: Pair) -> None:
    route = recipe_of(gemmas.hops(*ROUTES["negative to the end"]), out_dtype="bfloat16")
    engine = MergeEngine(gemmas.sources)
    slices = read_recipe(fold(route, gemmas.structures).to_yaml(), where="test.yaml")
    one, other = dict(engine.execute(route)), dict(engine.execute(slices))
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_mergekit_executes_is_published_as_slices(llamas: Pair, gemmas: Pair) -> None:
    scaled = recipe_of(llamas.hops(("a", 0, 1.0), ("b", 1, -1.5)))
    assert published(scaled, llamas.structures) == fold(scaled, llamas.structures)
    plain = recipe_of(gemmas.hops(("a", 0, 1.0), ("b", 1, 1.0)))
    assert published(plain, gemmas.structures) == fold(plain, gemmas.structures)
    slices = fold(scaled, llamas.structures)
    assert published(slices, llamas.structures) == slices


def test_what_needs_a_shift_is_published_as_its_route_which_mergekit_refuses(gemmas: Pair) -> None:
    recipe = recipe_of(gemmas.hops(("a", 0, 1.0), ("b", 1, 1.5)))
    assert published(recipe, gemmas.structures) == recipe
    document = yaml.safe_load(recipe.to_yaml())
    with pytest.raises(RuntimeError, match="must be present"):
        MergeConfiguration.model_validate(document)


def test_stages_that_are_routes_are_published_as_slices_too(llamas: Pair) -> None:
    stage = recipe_of(llamas.hops(("a", 0, 1.0), ("b", 1, 2.0)))
    final = Recipe.model_validate(
        {"merge_method": "linear", "models": [{"model": "deep"}], "stages": {"deep": stage}}
    )
    assert published(final, llamas.structures).stages == {"deep": fold(stage, llamas.structures)}


@pytest.mark.parametrize(
    ("scales", "product"), [((1e30, 1e30), "1e+60"), ((1e-30, 1e-30), "1e-60")]
)
def test_scales_that_float32_cannot_hold_together_are_refused(
    llamas: Pair, scales: tuple[float, float], product: str
) -> None:
    recipe = recipe_of(llamas.hops(("a", 0, 1.0), *(("b", 1, scale) for scale in scales)))
    with pytest.raises(RecipeError) as caught:
        MergeEngine(llamas.sources).plan(recipe)
    assert str(caught.value) == (
        f"route.2.scale: the scales up to here multiply to {product}, which float32 cannot hold; "
        "give numbers nearer to 1"
    )


def test_scales_that_come_back_to_one_are_held_by_what_lies_between(llamas: Pair) -> None:
    hops = llamas.hops(("a", 0, 4.0), ("b", 1, 0.25), ("b", 2, 1.0))
    first, last = fold(recipe_of(hops), llamas.structures).slices or ()
    assert first.sources[0].parameters and not last.sources[0].parameters


def test_without_scales_any_architecture_folds() -> None:
    structure = Structure(
        architecture="OddLM",
        shapes={f"blocks.{layer}.theta.weight": (2, 2) for layer in range(3)},
        dtype="float32",
        tied=False,
        stacks=(Stack("blocks.", 3),),
    )
    route = (Stretch(model="x", layers=(0, 3)), Stretch(model="x", layers=(1, 3)))
    recipe = Recipe(merge_method="passthrough", route=route)
    folded = fold(recipe, {"x": structure})
    assert [piece.sources[0].layer_range for piece in folded.slices or ()] == [(0, 3), (1, 3)]
    scaled = (route[0], Stretch(model="x", layers=(1, 3), scale=1.5))
    with pytest.raises(RecipeError, match=r"^route\.1\.scale: .* OddLM; leave them out"):
        fold(recipe.model_copy(update={"route": scaled}), {"x": structure})
