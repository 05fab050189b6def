"""Merges as sources of merges: the checkpoint that is never written, to the byte."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import yaml

from evomerge.errors import RecipeError
from evomerge.export.checkpoint import write_checkpoint
from evomerge.merge.engine import MergeEngine
from evomerge.merge.merged_source import MergedSource, open_stages
from evomerge.recipe import Recipe, read_recipe
from evomerge.sources import Checkpoint, Source, open_source
from tests.architectures import save_architecture, save_expert
from tests.merge.conftest import (
    Document,
    Family,
    as_recipe,
    make_family,
    open_family,
    worst_difference,
)


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return make_family(tmp_path_factory.mktemp("family"), dtype=request.param)


def ties(family: Family) -> Document:
    return {
        "merge_method": "ties",
        "base_model": family.base,
        "models": [
            {"model": expert, "parameters": {"weight": 0.7, "density": 0.43}}
            for expert in family.experts
        ],
    }


def dare(family: Family) -> Document:
    return {**ties(family), "merge_method": "dare_ties", "evomerge": {"seed": 3}}


def deeper(family: Family) -> Document:
    """Six layers of two models that have four."""
    first, second = family.experts[:2]
    return {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": first, "layer_range": [0, 3]}]},
            {
                "sources": [
                    {
                        "model": second,
                        "layer_range": [1, 4],
                        "parameters": {"scale": [{"filter": "o_proj", "value": 0.5}]},
                    }
                ]
            },
        ],
    }


def routed(family: Family) -> Document:
    """Five layers, the stream scaled before the last two."""
    first, second = family.experts[:2]
    return {
        "merge_method": "passthrough",
        "route": [
            {"model": first, "layers": [0, 3]},
            {"model": second, "layers": [2, 4], "scale": -1.3},
        ],
    }


RECIPES = {"ties": ties, "dare": dare, "deeper": deeper, "routed": routed}
DEPTHS = {"deeper": 6, "routed": 5}


def write_stage(recipe: Recipe, sources: dict[str, Source], folder: Path) -> Checkpoint:
    folder.mkdir()
    write_checkpoint(recipe, sources, sources[recipe.references[0]], folder)
    written = open_source(str(folder), where="test")
    assert isinstance(written, Checkpoint)
    return written


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("out_dtype", ["bfloat16", None])
def test_its_tensors_are_those_of_the_written_checkpoint_to_the_byte(
    stored: Family, tmp_path: Path, kind: str, out_dtype: str | None
) -> None:
    recipe = as_recipe({**RECIPES[kind](stored), "out_dtype": out_dtype})
    source = MergedSource("stage", recipe, stored.sources)
    written = write_stage(recipe, stored.sources, tmp_path / "stage")
    names = list(source.structure.shapes) * 3
    random.Random(0).shuffle(names)
    assert len(names) > 100
    for name in names:
        ours, theirs = source.tensor(name), written.tensor(name)
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours.view(torch.uint8), theirs.view(torch.uint8)), name
    assert set(names) == set(written.structure.shapes)


@pytest.mark.parametrize("kind", RECIPES)
def test_it_is_built_as_the_written_checkpoint_is(
    stored: Family, tmp_path: Path, kind: str
) -> None:
    recipe = as_recipe({**RECIPES[kind](stored), "out_dtype": "bfloat16"})
    source = MergedSource("stage", recipe, stored.sources)
    written = write_stage(recipe, stored.sources, tmp_path / "stage")
    assert source.structure == written.structure
    assert source.config == written.config
    assert source.reference == "stage"
    assert (source.files, source.sha256(), source.revision) == ({}, {}, None)
    assert source.structure.depth == DEPTHS.get(kind, 4)


@pytest.mark.parametrize("architecture", ["t5", "qwen2", "mixtral", "llava"])
def test_other_architectures_are_built_as_written_too(tmp_path: Path, architecture: str) -> None:
    base = save_architecture(tmp_path / "base", architecture)
    family = open_family(base, save_expert(tmp_path / "expert", of=base, seed=1))
    models = [{"model": each, "parameters": {"weight": 0.5}} for each in family.sources]
    recipe = as_recipe({"merge_method": "linear", "models": models, "out_dtype": "bfloat16"})
    source = MergedSource("stage", recipe, family.sources)
    written = write_stage(recipe, family.sources, tmp_path / "stage")
    assert source.structure == written.structure
    assert source.config == written.config
    for name in written.structure.shapes:
        assert torch.equal(source.tensor(name), written.tensor(name))


def of_documents(*documents: Document) -> Recipe:
    return read_recipe(yaml.safe_dump_all(documents), where="test.yaml")


def three_merges(family: Family) -> tuple[Document, ...]:
    """A merge of a deeper model, made of a merge, and of that merge itself."""
    first, _, third = family.experts
    return (
        {"name": "blend", "out_dtype": "bfloat16", **ties(family)},
        {
            "name": "deep",
            "merge_method": "passthrough",
            "slices": [
                {"sources": [{"model": "blend", "layer_range": [0, 3]}]},
                {"sources": [{"model": third, "layer_range": [0, 4]}]},
            ],
        },
        {
            "merge_method": "linear",
            "slices": [
                {
                    "sources": [
                        {"model": "deep", "layer_range": [2, 6], "parameters": {"weight": 0.6}},
                        {"model": "blend", "layer_range": [0, 4], "parameters": {"weight": 0.3}},
                        {"model": first, "layer_range": [0, 4], "parameters": {"weight": 0.1}},
                    ]
                }
            ],
        },
    )


def test_a_merge_of_merges_is_that_of_their_checkpoints(family: Family, tmp_path: Path) -> None:
    recipe = of_documents(*three_merges(family))
    merged = dict(MergeEngine(open_stages(recipe, family.sources)).execute(recipe))

    written = dict(family.sources)
    for name, stage in recipe.stages.items():
        written[name] = write_stage(stage, written, tmp_path / name)
    expected = dict(MergeEngine(written).execute(recipe))
    assert worst_difference(merged, expected) == 0.0
    rounded = written["blend"].tensor("model.norm.weight")
    assert rounded.dtype == torch.bfloat16  # each stage is rounded as it says


def test_the_name_of_a_stage_goes_before_a_model_of_that_name(family: Family) -> None:
    first, second, _ = family.experts
    copied = {"merge_method": "linear", "parameters": {"weight": 1.0}}
    recipe = of_documents(
        {**copied, "name": "taken", "models": [{"model": second}]},
        {**copied, "models": [{"model": "taken"}]},
    )
    sources = {**family.sources, "taken": family.sources[first]}
    merged = dict(MergeEngine(open_stages(recipe, sources)).execute(recipe))
    assert worst_difference(merged, family.tensors(second)) == 0.0


def test_what_no_merge_uses_is_not_opened(family: Family) -> None:
    final = three_merges(family)[2]
    recipe = as_recipe(ties(family)).model_copy(
        update={"stages": {"unused": as_recipe({**final, "base_model": "no/such/model"})}}
    )
    assert open_stages(recipe, family.sources) == family.sources


def test_a_stage_s_problem_is_said_with_its_name(family: Family) -> None:
    recipe = of_documents(
        {"name": "blend", **ties(family), "parameters": {"weihgt": 1}},
        {"merge_method": "linear", "models": [{"model": "blend", "parameters": {"weight": 1}}]},
    )
    with pytest.raises(RecipeError, match=r"^blend: parameters\.weihgt: ") as caught:
        open_stages(recipe, family.sources)
    assert "\n" not in str(caught.value)


def test_a_stage_whose_model_was_not_opened_is_refused(family: Family) -> None:
    recipe = of_documents(
        {"name": "blend", "merge_method": "linear", "models": [{"model": "elsewhere"}]},
        {"merge_method": "linear", "models": [{"model": "blend"}]},
    )
    with pytest.raises(RecipeError, match=r"^blend: models: elsewhere is not among the models"):
        open_stages(recipe, family.sources)


def test_a_method_that_needs_statistics_of_a_stage_is_refused(family: Family) -> None:
    fisher = {"merge_method": "fisher", "models": [{"model": "blend"}, {"model": family.base}]}
    recipe = of_documents({"name": "blend", **ties(family)}, fisher)
    with pytest.raises(RecipeError, match=r"^merge_method: fisher needs statistics of blend"):
        open_stages(recipe, family.sources)
