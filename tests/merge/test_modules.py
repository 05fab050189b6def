"""Parts of networks by name: what a module holds, and what lies before the layers."""

from __future__ import annotations

import pytest
from mergekit.architecture.base import ModuleDefinition
from mergekit.architecture.json_definitions import JSON_ARCHITECTURES, JsonModuleArchitecture

from evomerge.errors import RecipeError
from evomerge.merge.plan.modules import parts_named
from evomerge.merge.plan.slices import is_before_layers
from evomerge.sources import Stack, Structure


def structure(*names: str, stacks: tuple[str, ...]) -> Structure:
    """Two layers in each stack, with the tensors named beside them."""
    layers = [f"{prefix}{layer}.fc.weight" for prefix in stacks for layer in (0, 1)]
    return Structure(
        architecture="Net",
        shapes=dict.fromkeys([*names, *layers], (2, 2)),
        dtype="float32",
        tied=False,
        stacks=tuple(Stack(prefix, 2) for prefix in stacks),
    )


T5 = structure(
    "shared.weight",
    "lm_head.weight",
    "encoder.final_layer_norm.weight",
    "decoder.final_layer_norm.weight",
    stacks=("decoder.block.", "encoder.block."),
)
WHISPER = structure(
    "proj_out.weight",
    "model.encoder.conv1.weight",
    "model.decoder.embed_tokens.weight",
    stacks=("model.decoder.layers.", "model.encoder.layers."),
)
QWEN2_VL = structure(
    "lm_head.weight",
    "model.embed_tokens.weight",
    "model.norm.weight",
    "visual.patch_embed.proj.weight",
    "visual.merger.ln_q.weight",
    stacks=("model.layers.", "visual.blocks."),
)
GEMMA3_VL = structure(
    "language_model.lm_head.weight",
    "language_model.model.norm.weight",
    "multi_modal_projector.mm_soft_emb_norm.weight",
    "vision_tower.vision_model.post_layernorm.weight",
    stacks=("language_model.model.layers.", "vision_tower.vision_model.encoder.layers."),
)
LLAVA = structure(
    "lm_head.weight",
    "model.language_model.norm.weight",
    "model.multi_modal_projector.linear_1.weight",
    "model.vision_tower.vision_model.post_layernorm.weight",
    stacks=("model.language_model.layers.", "model.vision_tower.vision_model.encoder.layers."),
)
LLAMA = structure("model.embed_tokens.weight", "lm_head.weight", stacks=("model.layers.",))


@pytest.mark.parametrize(
    ("net", "names", "outside"),
    [
        (
            T5,
            ["encoder", "decoder", "shared"],
            [
                ["encoder.final_layer_norm.weight"],
                ["decoder.final_layer_norm.weight"],
                ["shared.weight", "lm_head.weight"],
            ],
        ),
        (
            WHISPER,
            ["model.encoder", "decoder"],
            [["model.encoder.conv1.weight"], ["model.decoder.embed_tokens.weight"]],
        ),
        (
            QWEN2_VL,
            ["text_decoder", "vision_tower", "multi_modal_projector"],
            [
                ["lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"],
                ["visual.patch_embed.proj.weight"],
                ["visual.merger.ln_q.weight"],
            ],
        ),
        (
            QWEN2_VL,
            ["model.layers", "visual", "default"],
            [
                ["model.embed_tokens.weight", "model.norm.weight"],
                ["visual.patch_embed.proj.weight", "visual.merger.ln_q.weight"],
                ["lm_head.weight"],
            ],
        ),
        (
            GEMMA3_VL,
            ["text_decoder", "vision_tower", "multi_modal_projector"],
            [
                ["language_model.lm_head.weight", "language_model.model.norm.weight"],
                ["vision_tower.vision_model.post_layernorm.weight"],
                ["multi_modal_projector.mm_soft_emb_norm.weight"],
            ],
        ),
        (
            LLAVA,
            ["language_model", "vision_model", "multi_modal_projector"],
            [
                ["lm_head.weight", "model.language_model.norm.weight"],
                ["model.vision_tower.vision_model.post_layernorm.weight"],
                ["model.multi_modal_projector.linear_1.weight"],
            ],
        ),
        (LLAMA, ["default"], [["model.embed_tokens.weight", "lm_head.weight"]]),
        (LLAMA, ["model.layers"], [["model.embed_tokens.weight", "lm_head.weight"]]),
    ],
)
def test_modules_are_found_by_their_names(
    net: Structure, names: list[str], outside: list[list[str]]
) -> None:
    parts = parts_named(names, net)
    assert [
        [tensor for tensor in parts[name].tensors if net.layer_of(tensor) is None] for name in names
    ] == outside
    for part in parts.values():
        layers = [tensor for tensor in part.tensors if net.layer_of(tensor) is not None]
        assert len(layers) == (0 if part.stack is None else 2)
        assert {net.stack_of(tensor) for tensor in layers} == ({part.stack} - {None})


def test_what_no_named_module_holds_is_left_over() -> None:
    (part,) = parts_named(["encoder"], T5).values()
    assert all(tensor.startswith("encoder.") for tensor in part.tensors)
    (part,) = parts_named(["vision_tower"], LLAVA).values()
    assert "model.multi_modal_projector.linear_1.weight" not in part.tensors


@pytest.mark.parametrize(
    ("net", "name"), [(T5, "text_decoder"), (LLAMA, "encoder"), (T5, "block"), (LLAVA, "model")]
)
def test_an_unknown_or_ambiguous_module_is_refused(net: Structure, name: str) -> None:
    with pytest.raises(RecipeError, match=f"^modules: {name} is no module of this network; it has"):
        parts_named([name], net)


def test_one_module_under_two_names_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"encoder, encoder\.block name one part twice"):
        parts_named(["encoder", "encoder.block"], T5)


def published_modules() -> list[tuple[str, ModuleDefinition]]:
    return [
        (f"{architecture.architectures[0]}:{name}", module)
        for architecture in JSON_ARCHITECTURES
        for name, module in architecture.modules.items()
    ]


@pytest.mark.parametrize(("name", "module"), published_modules(), ids=lambda value: str(value)[:50])
def test_tensors_lie_before_or_after_the_layers_as_published(
    name: str, module: ModuleDefinition
) -> None:
    """Where slices differ, it decides which of them a tensor outside the layers follows."""
    assert isinstance(module.architecture, JsonModuleArchitecture)
    definition = module.architecture.definition
    if definition.override_num_layers is not None:
        return  # a projector or a shared embedding: no slices
    for before, weights in ((True, definition.pre_weights), (False, definition.post_weights)):
        for weight in weights:
            if "layers." not in weight.name:
                assert is_before_layers(weight.name) == before, weight.name
