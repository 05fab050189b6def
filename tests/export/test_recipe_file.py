"""Merging from a recipe file: the export's bytes again, from the sources it was made from only."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from evomerge.errors import RecipeError, RunError, SourceError
from evomerge.export import merge_recipe
from evomerge.recipe import Recipe, read_recipe
from tests.checkpoints import load_tensors, replace_tensors, save_tiny_llama
from tests.export.conftest import Family, contents, make_family


def exported_recipe(out: Path) -> Recipe:
    return read_recipe((out / "recipe.yaml").read_text(encoding="utf-8"), where="recipe.yaml")


@pytest.mark.parametrize("out_dtype", ["float32", "bfloat16"])
def test_the_exported_recipe_gives_the_same_model_to_the_byte(
    family: Family, tmp_path: Path, out_dtype: str
) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    family.export(out, shard_bytes=60_000, out_dtype=out_dtype)
    merge_recipe(exported_recipe(out), again, shard_bytes=60_000)
    ours, theirs = contents(out), contents(again)
    for folder in (ours, theirs):  # they tell another story, and the manifest lists them
        del folder["README.md"], folder["manifest.json"]
    assert ours == theirs


def test_a_merge_of_one_s_own_recipe_needs_no_hashes(family: Family, tmp_path: Path) -> None:
    text = f"""
merge_method: linear
models:
  - {{model: {family.arithmetic}, parameters: {{weight: 0.3}}}}
  - {{model: {family.japanese}, parameters: {{weight: 0.6}}}}
dtype: bfloat16
"""
    weights = merge_recipe(read_recipe(text, where="mine.yaml"), tmp_path / "out")
    assert weights.tensors == len(load_tensors(family.base))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# arithmetic + japanese" in card
    assert "nothing was scored" in card
    assert str(family.base.parent) not in card
    assert exported_recipe(tmp_path / "out").out_dtype == "bfloat16"


def test_a_recipe_without_a_dtype_stays_one(tmp_path: Path) -> None:
    """What is stored is then what the models are stored as, each time it is executed."""
    base = save_tiny_llama(tmp_path / "base", seed=0, layers=1, dtype=torch.bfloat16)
    text = f"merge_method: linear\nmodels: [{{model: {base}, parameters: {{weight: 0.3}}}}]"
    merge_recipe(read_recipe(text, where="mine.yaml"), tmp_path / "out")
    merge_recipe(exported_recipe(tmp_path / "out"), tmp_path / "again")
    assert contents(tmp_path / "out") == contents(tmp_path / "again")
    assert load_tensors(tmp_path / "again")["lm_head.weight"].dtype == torch.bfloat16


def test_a_changed_source_is_refused_by_the_name_of_its_file(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    family.export(tmp_path / "out")
    tensors = load_tensors(family.japanese)
    replace_tensors(family.japanese, {"model.norm.weight": tensors["model.norm.weight"] + 1})
    with pytest.raises(RecipeError) as caught:
        merge_recipe(exported_recipe(tmp_path / "out"), tmp_path / "again")
    message = str(caught.value)
    assert f"{family.japanese}: model.safetensors is not the one" in message
    assert "put that file back, or take `sources` out of the recipe's `evomerge:` block" in message
    assert "\n" not in message
    assert not (tmp_path / "again").exists()


def test_a_source_that_lost_a_file_is_refused(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    family.export(tmp_path / "out")
    (family.base / "tokenizer_config.json").unlink()
    with pytest.raises(RecipeError, match=r"tokenizer_config\.json is missing"):
        merge_recipe(exported_recipe(tmp_path / "out"), tmp_path / "again")


def moved_recipe(family: Family, out: Path, where: Path) -> Recipe:
    """The recipe as someone edits it who has the models elsewhere; the block stays as it was."""
    recipe = exported_recipe(out)
    text = recipe.with_block(sources=[]).to_yaml().replace(str(family.base.parent), str(where))
    return read_recipe(text, where="moved").with_block(sources=recipe.evomerge["sources"])


def test_a_recipe_whose_paths_were_changed_is_still_checked(tmp_path: Path) -> None:
    family = make_family(tmp_path / "here")
    family.export(tmp_path / "out")
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = moved_recipe(family, tmp_path / "out", tmp_path / "there")
    merge_recipe(moved, tmp_path / "again")
    name = "model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    shutil.copy(tmp_path / "there/base" / name, tmp_path / "there/arithmetic" / name)
    with pytest.raises(RecipeError, match=r"arithmetic: model\.safetensors is not the one"):
        merge_recipe(moved, tmp_path / "third")


def test_without_the_hashes_a_changed_source_is_merged(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    family.export(tmp_path / "out")
    tensors = load_tensors(family.base)
    replace_tensors(family.base, {"model.norm.weight": tensors["model.norm.weight"] + 1})
    recipe = exported_recipe(tmp_path / "out")
    block = {key: value for key, value in recipe.evomerge.items() if key != "sources"}
    merge_recipe(recipe.model_copy(update={"evomerge": block}), tmp_path / "again")
    name = "model.norm.weight"
    again, out = (load_tensors(tmp_path / folder)[name] for folder in ("again", "out"))
    assert not torch.equal(again, out)


@pytest.mark.parametrize(
    "sources", [3, "all", {"model": "a"}, [3], [{"model": "a"}], [{"sha256": {}}]]
)
def test_a_block_that_says_nothing_readable_is_refused(
    family: Family, tmp_path: Path, sources: object
) -> None:
    with pytest.raises(RecipeError, match=r"evomerge\.sources\.0: expected a mapping"):
        merge_recipe(family.recipe().with_block(sources=sources), tmp_path / "out")


def test_the_tokenizer_is_that_of_the_source_the_recipe_names(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    (family.base / "chat_template.jinja").write_text("base")
    (family.japanese / "chat_template.jinja").write_text("japanese")
    for wanted, template in ((None, "base"), ("base", "base"), (str(family.japanese), "japanese")):
        out = tmp_path / f"out-{template}-{wanted is None}"
        merge_recipe(family.recipe(tokenizer_source=wanted), out)
        assert (out / "chat_template.jinja").read_text() == template


def test_a_tokenizer_of_a_model_outside_the_merge_is_a_source_too(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    other = make_family(tmp_path / "other").base
    (other / "chat_template.jinja").write_text("other")
    merge_recipe(family.recipe(tokenizer_source=str(other)), tmp_path / "out")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "other"
    stated = exported_recipe(tmp_path / "out").evomerge["sources"]
    assert [entry["model"] for entry in stated][-1] == str(other)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"merge_method": "tyes"}, RecipeError, "did you mean ties"),
        ({"tokenizer_source": "no/where/at all"}, SourceError, "tokenizer_source: no/where"),
        ({"base_model": "/no/such/folder"}, SourceError, "models.0: /no/such/folder"),
    ],
)
def test_what_cannot_be_merged_is_refused_and_leaves_nothing(
    family: Family, tmp_path: Path, changes: dict[str, str], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        merge_recipe(family.recipe(**changes), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_refused(family: Family, tmp_path: Path) -> None:
    family.export(tmp_path / "out")
    before = contents(tmp_path)
    with pytest.raises(RunError, match="exists already"):
        merge_recipe(family.recipe(), tmp_path / "out")
    assert contents(tmp_path) == before
