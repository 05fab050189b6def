"""Stacks of layers, found in architectures that are nowhere named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evomerge.sources import Stack, Structure, open_source
from tests.architectures import save_architecture, write_tensors
from tests.checkpoints import load_tensors, replace_tensors
from tests.sources.conftest import change_config, refused

STACKS = {
    "llama": [("model.layers.", 3)],
    "gemma3": [("model.layers.", 3)],
    "gpt2": [("transformer.h.", 3)],
    "gpt_neox": [("gpt_neox.layers.", 3)],
    "mixtral": [("model.layers.", 3)],
    "qwen3_moe": [("model.layers.", 3)],
    "mamba": [("backbone.layers.", 3)],
    "bert": [("bert.encoder.layer.", 3)],
    "t5": [("decoder.block.", 3), ("encoder.block.", 2)],
    "llava": [("language_model.model.layers.", 3), ("vision_tower.encoder.layers.", 2)],
    "qwen2_vl": [("model.layers.", 3), ("visual.blocks.", 2)],
}


def structure_of(folder: Path) -> Structure:
    return open_source(str(folder), where="test").structure


@pytest.mark.parametrize("name", STACKS)
def test_the_stacks_of_an_architecture_are_found_the_language_models_first(
    tmp_path: Path, name: str
) -> None:
    structure = structure_of(save_architecture(tmp_path / name, name))
    assert structure.stacks == tuple(Stack(*stack) for stack in STACKS[name])
    assert (structure.layer_prefix, structure.depth) == STACKS[name][0]


def test_a_tensor_has_its_place_in_its_own_stack(tmp_path: Path) -> None:
    structure = structure_of(save_architecture(tmp_path / "t5", "t5"))
    decoder, encoder = structure.stacks
    name = "encoder.block.1.layer.0.SelfAttention.q.weight"
    assert structure.stack_of(name) is encoder
    assert (structure.layer_of(name), structure.position_of(name)) == (1, 1.0)
    name = "decoder.block.1.layer.2.layer_norm.weight"
    assert structure.stack_of(name) is decoder
    assert (structure.layer_of(name), structure.position_of(name)) == (1, 0.5)
    assert structure.stack_of("shared.weight") is None
    assert (structure.layer_of("shared.weight"), structure.position_of("shared.weight")) == (
        None,
        0,
    )
    assert structure.outer == (
        "decoder.final_layer_norm.weight",
        "encoder.final_layer_norm.weight",
        "shared.weight",
    )


def test_the_only_layer_of_a_stack_is_its_last() -> None:
    structure = Structure(
        architecture="Any",
        shapes={"h.0.mlp.w": (2, 2)},
        dtype="float32",
        tied=False,
        stacks=(Stack("h.", 1),),
    )
    assert structure.position_of("h.0.mlp.w") == 1.0
    assert structure.dtypes == {"h.0.mlp.w": "float32"}


def test_layers_that_share_weights_are_found_by_their_groups(saved: Path) -> None:
    """ALBERT's: stored once, whatever number of layers they are used as."""
    layers = {
        name.replace("model.layers.0.", "encoder.groups.0.layers.0."): tensor
        for name, tensor in load_tensors(saved).items()
        if "model.layers." not in name or "layers.0." in name
    }
    write_tensors(saved, layers)
    change_config(saved, num_hidden_layers=12, num_hidden_groups=1)
    assert structure_of(saved).stacks == (Stack("encoder.groups.", 1),)


def test_the_layers_of_a_loop_are_found_though_the_config_counts_its_passes(saved: Path) -> None:
    change_config(saved, num_hidden_layers=32, num_layers_per_stack=4)
    assert structure_of(saved).stacks == (Stack("model.layers.", 4),)


@pytest.mark.parametrize("width", [32, 300])
def test_of_two_stacks_the_one_the_config_means_is_taken(saved: Path, width: int) -> None:
    """A tower that is heavier, of the language model's depth or not."""
    layers = 2 if width == 32 else 4
    tower = {
        f"vision.blocks.{i}.{name}": torch.zeros(shape)
        for i in range(layers)
        for name, shape in (("mlp.weight", (300, 300)), ("norm.weight", (width,)))
    }
    replace_tensors(saved, tower)
    structure = structure_of(saved)
    assert structure.stacks == (Stack("model.layers.", 4), Stack("vision.blocks.", layers))
    assert structure.layer_of("vision.blocks.1.mlp.weight") == 1


def test_without_a_depth_in_the_config_the_heaviest_stack_is_taken(saved: Path) -> None:
    tower = {f"vision.blocks.{i}.mlp.weight": torch.zeros(8, 8) for i in range(6)}
    replace_tensors(saved, tower)
    change_config(saved, num_hidden_layers=None)
    assert structure_of(saved).layer_prefix == "model.layers."


def test_the_language_models_settings_may_lie_in_a_section(saved: Path) -> None:
    change_config(saved, num_hidden_layers=None, text_config={"num_hidden_layers": 4})
    assert structure_of(saved).depth == 4
    change_config(saved, text_config={"num_hidden_layers": 5})
    assert "no 5 numbered layers among its tensors" in refused(saved)


def test_experts_and_lists_of_matrices_are_no_stacks(saved: Path) -> None:
    more = {
        f"model.layers.{layer}.mlp.experts.{e}.up.weight": torch.zeros(64, 64)
        for layer in range(4)
        for e in range(4)
    }
    more |= {f"projector.{i}.weight": torch.zeros(200, 200) for i in range(4)}
    more |= {f"bits.{i}.norm.weight": torch.zeros(300, 300) for i in (1, 2, 3, 4)}
    replace_tensors(saved, more)
    structure = structure_of(saved)
    assert structure.stacks == (Stack("model.layers.", 4),)
    assert structure.layer_of("model.layers.2.mlp.experts.0.up.weight") == 2
    assert structure.layer_of("projector.1.weight") is None


def test_layers_that_draft_tokens_are_not_counted(saved: Path) -> None:
    draft = {"model.layers.4.mlp.up_proj.weight": torch.zeros(64, 32)}
    replace_tensors(saved, draft)
    assert "no 4 numbered layers among its tensors" in refused(saved)
    change_config(saved, num_nextn_predict_layers=1)
    structure = structure_of(saved)
    assert structure.stacks == (Stack("model.layers.", 4),)
    assert structure.layer_of("model.layers.4.mlp.up_proj.weight") is None
