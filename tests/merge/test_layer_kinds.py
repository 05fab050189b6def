"""Layers in another order keep their kind, or the merge is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedConfig

from evomerge.errors import RecipeError
from evomerge.merge.engine import MergeEngine
from evomerge.merge.settings.config import merged_config
from evomerge.merge.soundness import check_loadable
from evomerge.recipe import Recipe, Slice, SliceSource
from evomerge.sources import open_source

_TEXT: Mapping[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_MOE: Mapping[str, Any] = {
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 8,
}
_MAMBA: Mapping[str, Any] = {
    "mamba_n_heads": 4,
    "mamba_d_state": 4,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
}


def jamba() -> PreTrainedConfig:
    return transformers.JambaConfig(
        **_TEXT,
        num_experts=2,
        use_mamba_kernels=False,
        mamba_d_state=4,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
    )


def ernie() -> PreTrainedConfig:
    return transformers.Ernie4_5_MoeConfig(
        **_TEXT,
        moe_intermediate_size=8,
        moe_k=1,
        moe_num_experts=2,
        moe_num_shared_experts=1,
        moe_layer_start_index=1,
        moe_layer_end_index=5,
    )


def nemotron_h() -> PreTrainedConfig:
    return transformers.NemotronHConfig(
        **_TEXT,
        hybrid_override_pattern="M-M*-M",
        mamba_num_heads=4,
        mamba_head_dim=4,
        ssm_state_size=4,
        n_groups=1,
        head_dim=4,
    )


def qwen3_next() -> PreTrainedConfig:
    return transformers.Qwen3NextConfig(
        **_TEXT,
        **_MOE,
        head_dim=8,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=4,
        linear_value_head_dim=4,
        shared_expert_intermediate_size=8,
    )


def qwen2_moe() -> PreTrainedConfig:
    return transformers.Qwen2MoeConfig(
        **_TEXT, **_MOE, decoder_sparse_step=2, shared_expert_intermediate_size=8
    )


def bamba() -> PreTrainedConfig:
    return transformers.BambaConfig(**_TEXT, **_MAMBA, attn_layer_indices=[1, 3])


def recurrent_gemma() -> PreTrainedConfig:
    return transformers.RecurrentGemmaConfig(**_TEXT, lru_width=16, head_dim=4)


def gemma_4() -> PreTrainedConfig:
    """Layers that see all have larger heads, which config.json lists by the number of the layer."""
    return transformers.Gemma4TextConfig(
        **_TEXT,
        head_dim=4,
        global_head_dim=8,
        hidden_size_per_layer_input=0,
        layer_types=["sliding_attention", "full_attention"] * 3,
    )


def zamba() -> PreTrainedConfig:
    """Layers with attention share one set of weights."""
    return transformers.ZambaConfig(
        **{**_TEXT, "num_key_value_heads": 4},
        layers_block_type=["mamba", "hybrid"] * 3,
        n_mamba_heads=2,
        mamba_d_state=4,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
    )


def diff_llama() -> PreTrainedConfig:
    return transformers.DiffLlamaConfig(**_TEXT)


def gpt2_by_number() -> PreTrainedConfig:
    return transformers.GPT2Config(
        vocab_size=40, n_embd=16, n_layer=6, n_head=4, scale_attn_by_inverse_layer_idx=True
    )


Ranges = Sequence[tuple[int, int]]

REPEATED: Ranges = ((0, 4), (1, 6))
EVEN: Ranges = ((0, 4), (2, 6))
CUT: Ranges = ((0, 2),)
LATER: Ranges = ((1, 6),)


def make(folder: Path, kind: str, config: PreTrainedConfig) -> Path:
    torch.manual_seed(0)
    getattr(transformers, kind)(config).save_pretrained(folder)
    return folder


def restack(folder: Path, ranges: Ranges) -> dict[str, Any]:
    """The configuration of the layers in that order, which loads whole where it is not refused."""
    sources = {str(folder): open_source(str(folder), where="test")}
    slices = tuple(
        Slice(sources=(SliceSource(model=str(folder), layer_range=taken),)) for taken in ranges
    )
    recipe = Recipe(merge_method="passthrough", slices=slices)
    plan = MergeEngine(sources).plan(recipe)
    config = merged_config(recipe, plan, sources)
    shapes = {tensor.name: tensor.shape for tensor in plan.tensors}
    assert check_loadable(config, shapes).notes == ()
    return config


@pytest.mark.parametrize(
    ("kind", "configure", "refused", "fits"),
    [
        ("JambaForCausalLM", jamba, (REPEATED, LATER), (EVEN, CUT)),
        ("Ernie4_5_MoeForCausalLM", ernie, (REPEATED, EVEN, LATER), (CUT,)),
        ("RecurrentGemmaForCausalLM", recurrent_gemma, (EVEN, LATER), (CUT,)),
        ("DiffLlamaForCausalLM", diff_llama, (REPEATED, EVEN, LATER), (CUT,)),
        ("GPT2LMHeadModel", gpt2_by_number, (REPEATED, LATER), (CUT,)),
        ("NemotronHForCausalLM", nemotron_h, (), (REPEATED, EVEN, CUT, LATER)),
        ("Qwen3NextForCausalLM", qwen3_next, (), (REPEATED, EVEN, CUT, LATER)),
        ("Qwen2MoeForCausalLM", qwen2_moe, (), (REPEATED, EVEN, CUT, LATER)),
        ("BambaForCausalLM", bamba, (), (REPEATED, EVEN, CUT, LATER)),
        ("Gemma4ForCausalLM", gemma_4, (), (REPEATED, EVEN, CUT, LATER)),
    ],
)
def test_layers_keep_their_kind_or_are_refused(
    tmp_path: Path,
    kind: str,
    configure: Callable[[], PreTrainedConfig],
    refused: Sequence[Ranges],
    fits: Sequence[Ranges],
) -> None:
    folder = make(tmp_path / "m", kind, configure())
    for ranges in fits:
        restack(folder, ranges)
    for ranges in refused:
        with pytest.raises(RecipeError, match=r"^slices: layer \d of the result is layer \d of"):
            restack(folder, ranges)


def test_the_rule_that_says_the_kinds_is_named(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", "JambaForCausalLM", jamba())
    with pytest.raises(RecipeError, match=r"attn_layer_offset, attn_layer_period"):
        restack(folder, LATER)


def test_settings_by_the_number_of_a_layer_go_with_it(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", "Gemma4ForCausalLM", gemma_4())
    config = restack(folder, LATER)
    assert config["per_layer_config"] == {number: {"head_dim": 8} for number in "024"}


def test_layers_that_share_weights_stand_with_those_of_their_own_model_alone(
    tmp_path: Path,
) -> None:
    folders = [make(tmp_path / name, "ZambaForCausalLM", zamba()) for name in "ab"]
    restack(folders[0], EVEN)
    sources = {str(folder): open_source(str(folder), where="test") for folder in folders}
    slices = tuple(
        Slice(sources=(SliceSource(model=name, layer_range=taken),))
        for name, taken in zip(sources, ((0, 4), (2, 6)), strict=True)
    )
    recipe = Recipe(merge_method="passthrough", slices=slices)
    with pytest.raises(RecipeError, match=r"^slices: layers of .* share weights .*shared_transf"):
        merged_config(recipe, MergeEngine(sources).plan(recipe), sources)
