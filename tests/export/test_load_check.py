"""A folder is delivered if it loads whole and holds finite numbers, and else nothing is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from evomerge.errors import MergeError, RecipeError
from evomerge.merge.soundness import check_loadable
from evomerge.recipe import Recipe, RecipeModel
from evomerge.sources import open_source
from tests.architectures import ARCHITECTURES, save_architecture
from tests.checkpoints import load_tensors, replace_tensors, save_tiny_llama
from tests.export.conftest import Family, export_sources, make_family
from tests.sources.conftest import change_config

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_model_that_transformers_saved_is_known_to_load_whole(tmp_path: Path, name: str) -> None:
    """Heads of every kind: the class is the one that the configuration names."""
    source = open_source(str(save_architecture(tmp_path / "m", name)), where="test")
    found = check_loadable(source.config, source.structure.shapes)
    assert (found.left_out, found.unchecked, found.notes) == (frozenset(), None, ())
    shapes = dict(source.structure.shapes)
    gone = next(reversed(shapes))
    with pytest.raises(
        RecipeError, match=r"the merged model would not load completely: .* missing"
    ):
        check_loadable(source.config, {key: shapes[key] for key in shapes if key != gone})


def alone(folder: Path, **changes: object) -> Recipe:
    model = RecipeModel(model=str(folder), parameters={"weight": 1.0})
    return Recipe.model_validate({"merge_method": "linear", "models": (model,), **changes})


def export_alone(folder: Path, out: Path, **changes: object) -> tuple[str, ...]:
    source = open_source(str(folder), where="test")
    return export_sources(alone(folder, **changes), {str(folder): source}, out).notes


def test_a_model_that_lacks_a_tensor_is_not_delivered(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "m", seed=0)
    replace_tensors(folder, {UP: None})
    with pytest.raises(RecipeError, match=rf"would not load completely: {UP} missing for LlamaFor"):
        export_alone(folder, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


def test_a_tensor_of_another_shape_than_the_config_says_is_not_delivered(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "m", seed=0)
    change_config(folder, intermediate_size=60)
    with pytest.raises(RecipeError, match=r"would not load completely: .* of another shape"):
        export_alone(folder, tmp_path / "out")


def test_a_config_that_transformers_cannot_build_of_is_said_so(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "m", seed=0)
    change_config(folder, hidden_act="unheard of")
    with pytest.raises(RecipeError, match=r"cannot build the merged model from its config\.json"):
        export_alone(folder, tmp_path / "out")


def test_tensors_without_a_place_are_left_out_and_said(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "m", seed=0)
    replace_tensors(folder, {"model.extra": torch.zeros(3)})
    notes = export_alone(folder, tmp_path / "out")
    assert notes == ("model.extra left out, as transformers has no place for it",)
    assert "model.extra" not in load_tensors(tmp_path / "out")
    _, found = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(found.values())


def test_a_model_that_transformers_does_not_know_is_delivered_and_said(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "m", seed=0)
    change_config(folder, model_type="of_its_own", architectures=["OwnForCausalLM"])
    [note] = export_alone(folder, tmp_path / "out")
    assert note.startswith("not checked whether the result loads: transformers does not know of_it")
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_two_heads_of_their_own_are_written_with_a_config_that_says_so(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "m", seed=0, tied=True)
    head = load_tensors(folder)["model.embed_tokens.weight"] + 1
    replace_tensors(folder, {"lm_head.weight": head})
    assert export_alone(folder, tmp_path / "out") == ()
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(loaded.lm_head.weight.detach(), head)


def put(folder: Path, value: float) -> None:
    tensor = load_tensors(folder)[UP]
    tensor[0, 0] = value
    replace_tensors(folder, {UP: tensor})


def test_what_float16_cannot_hold_is_named_and_nothing_written(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "m", seed=0, dtype=torch.bfloat16)
    put(folder, 1e5)
    with pytest.raises(MergeError, match=rf"^{UP}: infinity, as {folder} has 9.98e\+04 there and"):
        export_alone(folder, tmp_path / "out", out_dtype="float16")
    assert not (tmp_path / "out").exists()
    export_alone(folder, tmp_path / "out", out_dtype="bfloat16")


def test_an_infinity_that_the_merge_makes_is_named(tmp_path: Path) -> None:
    family: Family = make_family(tmp_path)
    models = (RecipeModel(model=str(family.arithmetic), parameters={"weight": 3e38}),)
    put(family.arithmetic, 10.0)
    with pytest.raises(MergeError, match=r"the merge makes .* from finite tensors in float32"):
        family.export(tmp_path / "out", merge_method="task_arithmetic", models=models)
    assert not (tmp_path / "out").exists()


def test_a_large_model_is_checked_without_its_weights() -> None:
    """As many tensors as a model of 7B has, of which none has memory."""
    config = transformers.LlamaConfig(
        hidden_size=4096, intermediate_size=11008, architectures=["LlamaForCausalLM"]
    )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert check_loadable(config.to_dict(), shapes).notes == ()
