"""Merges of merges whose models differ in vocabulary: as if every one were written and opened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoTokenizer

from evomerge.errors import RecipeError
from evomerge.export import merge_recipe
from evomerge.merge.engine import MergeEngine
from evomerge.merge.merged_source import open_stages
from evomerge.recipe import Recipe, TokenizerSpec, read_recipe
from evomerge.sources import open_source
from evomerge.vocabulary import TokenizerReader, align_sources
from tests.checkpoints import load_tensors
from tests.vocabulary.models import WORDS, Family, make_family

Document = dict[str, Any]

CONFIGS = ("config.json", "generation_config.json")
MADE = ("model.safetensors", "tokenizer.json", *CONFIGS)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """The generations of the first expert end at a token of its own."""
    family = make_family(tmp_path_factory.mktemp("vocabularies"))
    for name in CONFIGS:
        path = family.first / name
        path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": len(WORDS)}))
    return family


def of_documents(*documents: Document) -> Recipe:
    return read_recipe(yaml.safe_dump_all(documents), where="recipe.yaml")


def half_of(*models: str | Path, **asked: Any) -> Document:
    entries = [{"model": str(model), "parameters": {"weight": 0.5}} for model in models]
    return {"merge_method": "linear", "models": entries, "dtype": "float32", **asked}


def merge_step_by_step(family: Family, folder: Path, stage: Document, last: Document) -> Path:
    """Both merges one after the other, the first by the folder it was written to."""
    merge_recipe(of_documents(stage), folder / "stage")
    text = yaml.safe_dump(last).replace("model: stage", f"model: {folder / 'stage'}")
    merge_recipe(of_documents(yaml.safe_load(text)), folder / "steps")
    return folder / "steps"


def assert_equal(ours: Path, theirs: Path, names: Sequence[str] = MADE) -> None:
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def test_every_merge_may_be_made_in_one_vocabulary_of_listed_models(
    family: Family, tmp_path: Path
) -> None:
    """As searches over models of several vocabularies write their winners.

    What a model lacks comes from the listed models only: a stage has nothing new to give.
    """
    listed = [str(model) for model in (family.base, family.first, family.second)]
    asked = {"tokenizer": {"source": "union"}, "evomerge": {"vocabulary": listed}}
    # The stage leads, and itself is led by a model whose generations end otherwise.
    stage, last = half_of(*listed[1:], **asked), half_of("stage", family.base, **asked)
    recipe = of_documents({"name": "stage", **stage}, last)
    merge_recipe(recipe, tmp_path / "out")

    sources = {name: open_source(name, where="test") for name in listed}
    spec = TokenizerSpec(source="union")
    shared = align_sources(spec, sources, base=listed[0], reader=TokenizerReader())
    expected = dict(MergeEngine(open_stages(recipe, shared.sources)).execute(recipe))
    found = load_tensors(tmp_path / "out")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert shared.tokenizer is not None
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.get_vocab() == shared.tokenizer.get_vocab()
    steps = merge_step_by_step(family, tmp_path, stage, last)
    assert_equal(tmp_path / "out", steps, ("config.json",))
    assert ends_of(tmp_path / "out") == ends_of(steps) == ["</s>", "<a>"]


def ends_of(folder: Path) -> list[str]:
    """The tokens that answers end with; the union may have them in other rows."""
    generation = json.loads((folder / "generation_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [tokenizer.convert_ids_to_tokens(end) for end in generation["eos_token_id"]]


def test_the_last_merge_alone_may_ask_for_a_vocabulary(family: Family, tmp_path: Path) -> None:
    stage, last = half_of(family.first), half_of("stage", family.second)
    last |= {"tokenizer": {"source": "union"}}
    merge_recipe(of_documents({"name": "stage", **stage}, last), tmp_path / "out")
    assert_equal(tmp_path / "out", merge_step_by_step(family, tmp_path, stage, last))


def test_a_stage_may_ask_for_the_tokenizer_of_its_leading_model(
    family: Family, tmp_path: Path
) -> None:
    stage, last = family.document(tokenizer={"source": "base"}), half_of("stage", family.base)
    merge_recipe(of_documents({"name": "stage", **stage}, last), tmp_path / "out")
    assert_equal(tmp_path / "out", merge_step_by_step(family, tmp_path, stage, last))


@pytest.mark.parametrize("final", [{}, {"tokenizer": {"source": "union"}}])
def test_a_stage_with_a_vocabulary_of_its_own_is_refused_by_name(
    family: Family, tmp_path: Path, final: Document
) -> None:
    stage = {"name": "stage", **family.document(tokenizer={"source": "union"})}
    recipe = of_documents(stage, half_of("stage", **final))
    with pytest.raises(RecipeError, match=r"^stage: its tokenizer is not that of"):
        merge_recipe(recipe, tmp_path / "out")


def test_models_of_a_stage_that_do_not_agree_are_refused_by_its_name(
    family: Family, tmp_path: Path
) -> None:
    recipe = of_documents({"name": "stage", **family.document()}, half_of("stage"))
    with pytest.raises(RecipeError, match=r"^stage: models: .* give them one vocabulary"):
        merge_recipe(recipe, tmp_path / "out")
