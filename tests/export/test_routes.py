"""Routes as folders: plain checkpoints, with a recipe that mergekit executes where it can."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

from evomerge.export import merge_recipe
from evomerge.recipe import load_recipe
from tests.architectures import save_architecture, save_expert
from tests.export.conftest import Family, contents
from tests.export.test_stages import Document, assert_same_model, blend, of_documents, published


def route(first: str | Path, second: str | Path) -> Document:
    """Five layers of two models, the stream scaled on the way."""
    return {
        "merge_method": "passthrough",
        "route": [
            {"model": str(first), "layers": [0, 2]},
            {"model": str(second), "layers": [1, 3], "scale": -1.25},
            {"model": str(first), "layers": [2, 3], "scale": 0.8},
        ],
        "dtype": "float32",
    }


def assert_made_again(out: Path) -> None:
    again = out.with_name("again")
    merge_recipe(load_recipe(out / "recipe.yaml"), again)
    assert contents(again) == contents(out)


def test_a_route_is_published_as_slices_that_mergekit_executes(
    family: Family, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    merge_recipe(of_documents([route(family.base, family.japanese)]), out)
    assert_made_again(out)
    stated = load_recipe(out / "recipe.yaml")
    assert (stated.route, len(stated.slices or ())) == (None, 3)
    configuration = MergeConfiguration.model_validate(yaml.safe_load(stated.to_yaml()))
    run_merge(configuration, str(tmp_path / "theirs"), MergeOptions(quiet=True))
    assert_same_model(out, tmp_path / "theirs")
    card = (out / "README.md").read_text()
    assert "A model of 5 layers of base and japanese, by `passthrough`" in card
    assert "mergekit-yaml recipe.yaml DIR" in card


def test_a_route_that_mergekit_cannot_execute_stays_one(tmp_path: Path) -> None:
    """Gemma's norms multiply by one plus their gain, which no scale of the gain can change."""
    base = save_architecture(tmp_path / "base", "gemma2")
    expert = save_expert(tmp_path / "expert", of=base, seed=1)
    out = tmp_path / "out"
    merge_recipe(of_documents([route(base, expert)]), out)
    assert_made_again(out)
    stated = load_recipe(out / "recipe.yaml")
    assert (len(stated.route or ()), stated.slices) == (3, None)
    card = (out / "README.md").read_text()
    assert "A model of 5 layers of base and expert, by `passthrough`" in card
    assert "mergekit-yaml" not in card
    assert json.loads((out / "config.json").read_text())["num_hidden_layers"] == 5


@pytest.mark.parametrize("last", ["route", "merge"])
def test_routes_over_merges_and_merges_of_routes(family: Family, tmp_path: Path, last: str) -> None:
    over = route("blend", family.japanese)
    documents = [blend(family), over]
    if last == "merge":
        models = [{"model": each, "parameters": {"weight": 0.5}} for each in ("walk", "twin")]
        linear = {"merge_method": "linear", "models": models, "dtype": "float32"}
        twin = route(family.arithmetic, "blend")
        documents = [blend(family), over | {"name": "walk"}, twin | {"name": "twin"}, linear]
    out = tmp_path / "out"
    merge_recipe(of_documents(documents), out)
    assert_made_again(out)
    published(out / "recipe.yaml", tmp_path / "theirs")
    assert_same_model(out, tmp_path / "theirs")
