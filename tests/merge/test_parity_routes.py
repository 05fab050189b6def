"""Folded routes in mergekit 0.1.5: the published slices make the model that the route is."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub.errors import StrictDataclassClassValidationError

from evomerge.recipe import Recipe
from evomerge.route import published as publish
from tests.architectures import write_tensors
from tests.checkpoints import load_tensors
from tests.merge.conftest import TOLERANCE, Published, Tensors, worst_difference
from tests.route.foldable import CONFIGS, Pair, load, logits_of, recipe_of, save_pair

LOGITS = 1e-5
"""Of the largest logit: the tensors differ by roundings, if at all."""


ONE_BY_ONE = ("llama", "llama, tied", "gpt2", "qwen2", "olmo2")
"""Architectures whose tensors mergekit names as they are stored."""

FUSED = ("mixtral", "qwen3_moe")
"""Architectures of which mergekit puts the experts of a layer into one tensor."""


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """Two models of an architecture, saved when first asked for."""

    @cache
    def save(name: str) -> Pair:
        return save_pair(tmp_path_factory.mktemp("pair"), CONFIGS[name])

    return save


def route(pair: Pair, sign: float) -> Recipe:
    """The other model's layers in the middle, one twice; the sign holds to the end."""
    other = (("b", 1, sign * 1.6), ("b", 1, 1.0), ("b", 2, 0.7))
    return recipe_of(pair.hops(("a", 0, 1.0), *other, ("a", 1, 1.0), ("a", 2, 1.2)))


def by_mergekit(published: Published, recipe: Recipe, folder: Path) -> Tensors:
    """The tensors that it writes; see `tests.merge.test_parity_slices` for why it may fail then."""
    document = yaml.safe_load(recipe.to_yaml())
    try:
        return published(document)
    except StrictDataclassClassValidationError as error:
        if "layer_types" not in str(error):
            raise
        return load_tensors(folder / "published")


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["positive", "negative"])
@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_mergekit_makes_the_folded_model_of_the_published_recipe(
    pairs: Callable[[str], Pair], published: Published, tmp_path: Path, name: str, sign: float
) -> None:
    pair = pairs(name)
    recipe = route(pair, sign)
    folder = pair.write(recipe, f"folded {sign}")
    theirs = by_mergekit(published, publish(recipe, pair.structures), tmp_path)
    assert worst_difference(load_tensors(folder), theirs) <= TOLERANCE
    ours = logits_of(load(folder))
    write_tensors(folder, theirs)
    assert_close(logits_of(load(folder)), ours)


@pytest.mark.parametrize("name", FUSED)
def test_experts_that_mergekit_fuses_are_scaled_too(
    pairs: Callable[[str], Pair], published: Published, tmp_path: Path, name: str
) -> None:
    pair = pairs(name)
    recipe = route(pair, -1.0)
    ours = logits_of(load(pair.write(recipe, "folded")))
    names = published(yaml.safe_load(publish(recipe, pair.structures).to_yaml()))
    assert any(name.endswith("experts.down_proj") for name in names)
    assert_close(logits_of(load(tmp_path / "published")), ours)


@pytest.mark.parametrize("name", [*ONE_BY_ONE, *FUSED])
def test_the_signs_are_models_that_differ(pairs: Callable[[str], Pair], name: str) -> None:
    """So that what is compared above tells them apart."""
    pair = pairs(name)
    one, other = (logits_of(load(pair.write(route(pair, sign), f"{sign}"))) for sign in (1.0, -1.0))
    assert (one - other).abs().max() > 0.1 * one.abs().max()


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found - expected).abs().max() <= LOGITS * expected.abs().max()
