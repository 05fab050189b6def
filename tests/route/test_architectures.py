"""The architectures that scales are folded into; that it is right, `test_folding` shows."""

from __future__ import annotations

import pytest
import transformers

from evomerge.errors import RecipeError
from evomerge.route.architectures import BLOCKS, require_foldable
from evomerge.sources import Stack, Structure
from tests.route.foldable import CONFIGS

LAYER = (
    "self_attn.q_proj.weight",
    "self_attn.o_proj.weight",
    "mlp.down_proj.weight",
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
)


def llama(*, outer: tuple[str, ...], without: str = "", architecture: str = "LlamaForCausalLM"):
    names = [f"model.layers.{layer}.{part}" for layer in range(2) for part in LAYER]
    shapes = {name: (2, 2) for name in (*names, *outer) if name != without}
    return Structure(
        architecture=architecture,
        shapes=shapes,
        dtype="float32",
        tied=False,
        stacks=(Stack("model.layers.", 2),),
    )


def test_every_architecture_of_the_table_is_folded_by_a_test() -> None:
    classes = {
        transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[
            configure().model_type
        ]
        for configure in CONFIGS.values()
    }
    assert classes == set(BLOCKS)


def test_an_architecture_that_is_not_known_is_refused_by_its_name() -> None:
    odd = llama(outer=("model.norm.weight",), architecture="OddForCausalLM")
    with pytest.raises(RecipeError) as caught:
        require_foldable(odd, "search_space.routes.scales")
    assert str(caught.value) == (
        "search_space.routes.scales: scales cannot be folded into a plain checkpoint of a "
        "OddForCausalLM; leave them out (in a search space: `scales: none`)"
    )


@pytest.mark.parametrize(
    ("structure", "odd"),
    [
        (llama(outer=("norm.weight",)), "model.norm.weight"),
        (
            llama(outer=("model.norm.weight",), without="model.layers.1.mlp.down_proj.weight"),
            ".down_proj",
        ),
        (llama(outer=("model.norm.weight", "draft.down_proj.weight")), ".down_proj"),
    ],
)
def test_names_that_filters_would_miss_or_hit_by_mistake_are_refused(
    structure: Structure, odd: str
) -> None:
    require_foldable(llama(outer=("model.norm.weight",)), "route.0.scale")
    with pytest.raises(RecipeError) as caught:
        require_foldable(structure, "route.0.scale")
    assert str(caught.value) == (
        "route.0.scale: scales cannot be folded into this LlamaForCausalLM: its tensors have "
        f"unusual names ({odd}); leave them out (in a search space: `scales: none`)"
    )
