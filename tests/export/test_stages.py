"""Recipes of several documents: mergekit's own command makes the same model of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from huggingface_hub import ModelCard
from mergekit.scripts import multimerge
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.errors import RecipeError, SourceError
from evomerge.export import merge_recipe
from evomerge.recipe import Recipe, load_recipe, read_recipe
from tests.checkpoints import load_tensors, replace_tensors
from tests.export.conftest import Family, contents, make_family

Document = dict[str, Any]

# Of the largest value of a tensor: both sides round each product and sum to float32, in different
# orders.
TOLERANCE = 1e-6


def blend(family: Family) -> Document:
    return {
        "name": "blend",
        "merge_method": "task_arithmetic",
        "base_model": str(family.base),
        "models": [
            {"model": str(family.arithmetic), "parameters": {"weight": 0.6}},
            {"model": str(family.japanese), "parameters": {"weight": [0.2, 0.9]}},
        ],
        "dtype": "float32",
    }


def taller(*parts: tuple[str, int, int]) -> Document:
    """A model of layers of others, one run after another."""
    return {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": model, "layer_range": [first, end]}]}
            for model, first, end in parts
        ],
        "dtype": "float32",
    }


def hybrid(family: Family) -> list[Document]:
    """Seven layers of a merge and of one of its models, which have four."""
    parts = ("blend", 0, 3), (str(family.japanese), 1, 3), ("blend", 2, 4)
    return [blend(family), taller(*parts)]


def of_documents(documents: list[Document]) -> Recipe:
    return read_recipe(yaml.safe_dump_all(documents), where="recipe.yaml")


def published(recipe: Path, out: Path) -> None:
    """What mergekit's command for several documents makes of a recipe file."""
    stages = out.with_name(f"{out.name}-stages")
    arguments = [str(recipe), "--out-path", str(out), "-I", str(stages), "--no-lazy", "--quiet"]
    result = CliRunner().invoke(multimerge.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def assert_same_model(ours: Path, theirs: Path) -> None:
    found, expected = load_tensors(ours), load_tensors(theirs)
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert float((found[name] - tensor).abs().max() / tensor.abs().max()) <= TOLERANCE
    depths = [
        json.loads((folder / "config.json").read_text())["num_hidden_layers"]
        for folder in (ours, theirs)
    ]
    assert depths[0] == depths[1]


def stage_of_a_stage(family: Family) -> list[Document]:
    deep = {**taller(("blend", 0, 4), (str(family.base), 2, 4)), "name": "deep"}
    return [deep, taller(("deep", 1, 6), (str(family.japanese), 3, 4)), blend(family)]


@pytest.mark.parametrize("documents", [hybrid, stage_of_a_stage])
def test_the_model_is_the_one_that_mergekit_makes(
    family: Family, tmp_path: Path, documents: Any
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump_all(documents(family)))
    merge_recipe(load_recipe(path), tmp_path / "ours")
    published(path, tmp_path / "theirs")
    assert_same_model(tmp_path / "ours", tmp_path / "theirs")


def test_mergekit_makes_the_same_model_of_what_is_exported(family: Family, tmp_path: Path) -> None:
    merge_recipe(of_documents(hybrid(family)), tmp_path / "ours")
    published(tmp_path / "ours" / "recipe.yaml", tmp_path / "theirs")
    assert_same_model(tmp_path / "ours", tmp_path / "theirs")


def test_the_exported_recipe_gives_the_same_bytes(family: Family, tmp_path: Path) -> None:
    recipe = of_documents(hybrid(family)).model_copy(update={"out_dtype": "bfloat16"})
    merge_recipe(recipe, tmp_path / "out")
    merge_recipe(recipe, tmp_path / "twice")
    assert contents(tmp_path / "out") == contents(tmp_path / "twice")
    again = load_recipe(tmp_path / "out" / "recipe.yaml")
    assert again.stages == recipe.stages
    merge_recipe(again, tmp_path / "again")
    assert contents(tmp_path / "out") == contents(tmp_path / "again")


def test_plain_transformers_loads_the_model_with_its_tokenizer(
    family: Family, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    merge_recipe(of_documents(hybrid(family)), out)
    model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert len(model.model.layers) == 7
    assert AutoTokenizer.from_pretrained(out)("two plus two").input_ids
    for name in ("tokenizer.json", "generation_config.json"):
        assert (out / name).read_bytes() == (family.base / name).read_bytes()


def test_card_and_manifest_tell_of_the_stages(family: Family, tmp_path: Path) -> None:
    merge_recipe(of_documents(hybrid(family)), tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    card = ModelCard(text)
    assert card.data.base_model == ["base", "arithmetic", "japanese"]
    assert "# arithmetic + japanese" in text
    assert (
        "First `blend`: a merge of arithmetic and japanese over base, by `task_arithmetic`" in text
    )
    assert "Then a model of 7 layers of `blend` and japanese, by `passthrough`" in text
    assert "mergekit-multi recipe.yaml --out-path DIR" in text
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [source["name"] for source in manifest["sources"]] == ["base", "arithmetic", "japanese"]
    assert manifest["merges"] == [
        {
            "name": "blend",
            "merge_method": "task_arithmetic",
            "models": ["base", "arithmetic", "japanese"],
        },
        {"merge_method": "passthrough", "models": ["blend", "japanese"]},
    ]
    assert str(family.base.parent) not in text + json.dumps(manifest)


def test_every_source_of_every_stage_is_checked(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    merge_recipe(of_documents(hybrid(family)), tmp_path / "out")
    recipe = load_recipe(tmp_path / "out" / "recipe.yaml")
    stated = [entry["model"] for entry in recipe.evomerge["sources"]]
    assert stated == list(recipe.checkpoints)
    assert all(stage.evomerge == {} for stage in recipe.stages.values())
    tensors = load_tensors(family.arithmetic)  # which the stage alone names
    replace_tensors(family.arithmetic, {"model.norm.weight": tensors["model.norm.weight"] + 1})
    with pytest.raises(RecipeError, match=r"arithmetic: model\.safetensors is not the one"):
        merge_recipe(recipe, tmp_path / "again")


def test_a_stage_goes_before_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = make_family(tmp_path)
    shutil.copytree(family.base, tmp_path / "blend")
    monkeypatch.chdir(tmp_path)
    merge_recipe(of_documents(hybrid(family)), tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [source["name"] for source in manifest["sources"]] == ["base", "arithmetic", "japanese"]
    merge_recipe(of_documents([blend(family) | {"name": "other"}, *renamed(family)]), Path("other"))
    assert_same_model(tmp_path / "out", tmp_path / "other")


def renamed(family: Family) -> list[Document]:
    """The last merge of `hybrid` over a stage of another name."""
    text = yaml.safe_dump(hybrid(family)[1]).replace("model: blend", "model: other")
    return [yaml.safe_load(text)]


TOKENIZER: Mapping[str, Any] = {"tokenizer": {"source": "union"}}


@pytest.mark.parametrize(
    ("stage", "final"),
    [(TOKENIZER, TOKENIZER), ({"tokenizer_source": "base"}, {}), ({}, TOKENIZER)],
)
def test_stages_of_models_that_agree_may_ask_for_their_vocabulary(
    family: Family, tmp_path: Path, stage: Document, final: Document
) -> None:
    first, last = hybrid(family)
    merge_recipe(of_documents([first, last]), tmp_path / "plain")
    merge_recipe(of_documents([first | stage, last | final]), tmp_path / "asked")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "asked" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_a_tokenizer_may_be_that_of_a_stage(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    (family.base / "chat_template.jinja").write_text("base")
    (family.japanese / "chat_template.jinja").write_text("japanese")
    last = taller((str(family.japanese), 0, 4)) | {"tokenizer_source": "blend"}
    merge_recipe(of_documents([blend(family), last]), tmp_path / "out")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "base"


@pytest.mark.parametrize("asked", [{"tokenizer_source": "JAPANESE"}, {"chat_template": "chatml"}])
def test_a_stage_that_asks_for_another_tokenizer_is_refused_by_name(
    tmp_path: Path, asked: Document
) -> None:
    family = make_family(tmp_path)
    first, last = hybrid(family)
    asked = {key: value.replace("JAPANESE", str(family.japanese)) for key, value in asked.items()}
    with pytest.raises(RecipeError, match=r"^blend: its tokenizer is not that of") as caught:
        merge_recipe(of_documents([first | asked, last]), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"base_model": "/no/such"}, SourceError, r"^blend: models\.0: /no/such: no such folder"),
        ({"merge_method": "taks"}, RecipeError, r"^blend: merge_method: taks is not known"),
    ],
)
def test_what_a_stage_cannot_merge_is_refused_by_its_name(
    family: Family, tmp_path: Path, changes: Document, error: type[Exception], said: str
) -> None:
    first, last = hybrid(family)
    with pytest.raises(error, match=said) as caught:
        merge_recipe(of_documents([first | changes, last]), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_over_a_stage_is_refused(family: Family, tmp_path: Path) -> None:
    last = {"merge_method": "linear", "models": [{"model": "blend+some/adapter"}]}
    used = {"merge_method": "linear", "models": [{"model": "blend"}, *last["models"]]}
    with pytest.raises(RecipeError, match="blend is a merge of this recipe, and adapters"):
        merge_recipe(of_documents([blend(family), used]), tmp_path / "out")
