"""A small configuration of any architecture of transformers, made from the class's own defaults.

Every size that a configuration class knows by a usual name is set to a small value, in nested
configurations too. What that does not suit has its own settings in `SPECIAL`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

ROWS = 40
"""Words of every vocabulary."""

DEPTH = 3

TOWER_DEPTH = 2
"""Layers of a tower for images or sounds; unlike the language model's, so that none is mistaken."""

_SIZES: Mapping[str, int] = {
    **dict.fromkeys(("vocab_size", "decoder_vocab_size", "unpadded_vocab_size"), ROWS),
    **dict.fromkeys(("vocab_size_per_layer_input", "audio_vocab_size"), ROWS),
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "word_embed_proj_dim"), 16
    ),
    **dict.fromkeys(
        ("emb_dim", "embed_dim", "input_embedding_size", "output_embedding_size", "hidden_dim"), 16
    ),
    **dict.fromkeys(("backbone_hidden_size", "lru_width", "attention_hidden_size"), 16),
    **dict.fromkeys(("projection_dim", "embedding_dim", "cross_attention_hidden_size"), 16),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "n_inner", "dff", "dim_ff", "d_inner", "ffn_hidden_size"),
        24,
    ),
    **dict.fromkeys(
        ("encoder_ffn_dim", "decoder_ffn_dim", "feed_forward_size", "intermediate_size_mlp"), 24
    ),
    **dict.fromkeys(
        ("shared_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"),
        12,
    ),
    **dict.fromkeys(
        (
            "moe_intermediate_size",
            "moe_shared_expert_intermediate_size",
            "shared_experts_intermediate_size",
            "prefix_dense_intermediate_size",
            "dense_intermediate_size",
        ),
        12,
    ),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "attention_heads"), 4),
    **dict.fromkeys(
        ("num_encoder_attention_heads", "num_decoder_attention_heads", "swa_num_attention_heads"),
        4,
    ),
    **dict.fromkeys(
        ("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads", "n_kv_heads"), 2
    ),
    **dict.fromkeys(
        ("head_dim", "swa_head_dim", "dim_head", "kv_channels", "attention_head_size", "d_head"), 8
    ),
    **dict.fromkeys(("global_head_dim", "linear_head_dim", "d_kv", "attention_head_dim"), 8),
    **dict.fromkeys(("num_global_key_value_heads",), 2),
    **dict.fromkeys(("v_head_dim", "qk_nope_head_dim", "qk_rope_head_dim"), 8),
    **dict.fromkeys(("qk_head_dim",), 16),
    **dict.fromkeys(("rotary_dim",), 4),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "o_lora_rank"), 8),
    **dict.fromkeys(
        (
            "num_experts",
            "num_local_experts",
            "n_routed_experts",
            "moe_num_experts",
            "moe_layer_num_experts",
        ),
        4,
    ),
    **dict.fromkeys(
        (
            "num_experts_per_tok",
            "moe_topk",
            "top_k_experts",
            "moe_k",
            "moe_top_k",
            "num_experts_per_token",
        ),
        2,
    ),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "num_shared_experts"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 64),
    **dict.fromkeys(("context_length", "max_target_positions", "max_source_positions"), 64),
    **dict.fromkeys(("original_max_position_embeddings",), 64),
    **dict.fromkeys(("state_size", "mamba_d_state", "ssm_state_size"), 4),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "n_mamba_heads"), 4),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "mamba_headdim"), 8),
    **dict.fromkeys(("mamba_n_groups", "n_groups", "mamba_ngroups"), 1),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size"), 8),
    **dict.fromkeys(("mamba_dt_rank", "time_step_rank"), 4),
    **dict.fromkeys(("linear_num_key_heads",), 2),
    **dict.fromkeys(("linear_num_value_heads", "linear_num_heads"), 4),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 4),
    **dict.fromkeys(
        ("index_head_dim", "indexer_head_dim"),
        8,
    ),
    **dict.fromkeys(("index_n_heads", "indexer_n_heads"), 2),
    **dict.fromkeys(("image_size",), 8),
    **dict.fromkeys(("patch_size",), 4),
    **dict.fromkeys(("first_k_dense_replace", "num_dense_layers"), 1),
    **dict.fromkeys(("sliding_window", "sliding_window_size", "attention_window_size"), 32),
    **dict.fromkeys(("attention_chunk_size", "local_attention"), 32),
    **dict.fromkeys(("type_vocab_size",), 2),
    **dict.fromkeys(("out_hidden_size", "vision_output_dim", "projector_input_dim"), 16),
    **dict.fromkeys(("projector_output_dim", "router_hidden_size", "output_proj_dims"), 16),
    **dict.fromkeys(("d_ff", "conv_channels", "mlp_dim"), 24),
    **dict.fromkeys(("num_position_embeddings", "position_embedding_size"), 16),
    **dict.fromkeys(("num_mel_bins", "input_feat_per_channel"), 16),
    **dict.fromkeys(("hidden_size_per_layer_input",), 8),
    **dict.fromkeys(("lora_rank", "adapter_rank", "laurel_rank"), 4),
}
"""Setting -> its small value."""

_DEPTHS = frozenset(
    {
        *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "depth"),
        *("decoder_layers", "num_decoder_layers", "num_encoder_layers", "num_blocks"),
    }
)
_TOWERS = ("vision_config", "audio_config")

_TOKENS: Mapping[str, int] = {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "image_token_id": 3,
    "image_token_index": 3,
    "video_token_id": 4,
    "audio_token_id": 4,
    "audio_token_index": 4,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": 2,
    "sep_token_id": 2,
    "cls_token_id": 1,
    "mask_token_id": 3,
}
_OTHER_TOKEN = 3

_BY_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type", "indexer_types")
"""Lists with the kind of each layer."""

_SLIDES, _SEES_ALL = "sliding_attention", "full_attention"
_GEMMA_4 = {"global_head_dim": 16, "layer_types": [_SLIDES, _SEES_ALL, _SEES_ALL]}
_GEMMA_3N = {
    "intermediate_size": 24,
    "num_kv_shared_layers": 2,
    "num_hidden_layers": 4,
    "layer_types": [_SLIDES, _SEES_ALL, _SLIDES, _SEES_ALL],
    "activation_sparsity_pattern": [0.0] * 4,
}
_GEMMA_4_DRAFT = {
    **_GEMMA_4,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 0,
    "num_kv_shared_layers": DEPTH,
}
_QWEN_4 = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "indexer_kv_heads": 1,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
    "hc_count": 2,
    "hc_lowrank": 4,
    "ple_embed_dim": 16,
    "ngram_vocab_size_base": 32,
    "make_ngram_vocab_size_divisible_by": 8,
    "split_ngram_parts": 1,
}

_MROPE = {
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [1, 1, 0],
    }
}
_DOTS = {
    "num_key_value_heads": 4,
    "head_dim": 16,
    "n_group": 1,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_q_lora_rank": 8,
    "swa_kv_lora_rank": 8,
    "swa_head_dim": 16,
    "swa_qk_nope_head_dim": 8,
    "swa_v_head_dim": 8,
    "index_topk": 16,
}

SPECIAL: Mapping[str, Mapping[str, Any]] = {
    "afmoe": {"num_dense_layers": 1},
    "bamba": {"attn_layer_indices": [1]},
    "blt": {
        "patch_size": 4,
        "encoder_hash_byte_group_vocab": 50,
        "encoder_hash_byte_group_size": [3, 4],
    },
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0} for kind in (_SLIDES, _SEES_ALL)
        },
        "layer_types": [_SLIDES, _SEES_ALL, _SLIDES],
    },
    "dbrx": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots3_note_text": _DOTS,
    "dots3_note": {
        "text_config": _DOTS,
        "vision_config": {
            "adapter_in_dim": 16,
            "adapter_out_dim": 16,
            "mlp_layer_types": ["dense"] * TOWER_DEPTH,
        },
        "audio_config": {
            "adapter_input_size": 16,
            "adapter_out_dim": 16,
            "downsample_hidden_size": 8,
        },
    },
    "falcon_h1": {"mamba_d_ssm": 32},
    "gemma3n_text": _GEMMA_3N,
    "gemma3n": {"text_config": _GEMMA_3N},
    "gemma4_text": _GEMMA_4,
    "gemma4": {"text_config": _GEMMA_4},
    "gemma4_assistant": {"text_config": _GEMMA_4_DRAFT},
    "gemma4_unified_assistant": {"text_config": _GEMMA_4_DRAFT},
    "gemma4_unified_text": _GEMMA_4,
    "gemma4_unified": {"text_config": _GEMMA_4},
    "got_ocr2": {"vision_config": {"mlp_dim": 24, "output_channels": 8, "window_size": 2}},
    "gpt_neo": {"attention_types": [[["global", "local", "global"], 1]], "window_size": 32},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba"]},
    "helium": {"head_dim": 4},
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "use_mamba_kernels": False,
    },
    "lfm2": {"layer_types": ["conv", _SEES_ALL, "conv"], "block_multiple_of": 8},
    "lfm2_moe": {"layer_types": ["conv", _SEES_ALL, "conv"]},
    "longcat_flash": {"zero_expert_num": 2},
    **{kind: {"text_config": _MROPE} for kind in ("qwen2_vl", "qwen2_5_vl", "glm4v", "glm4v_moe")},
    "phi4_multimodal": {
        "audio_config": {
            "ext_pw_out_channel": 16,
            "depthwise_separable_out_channel": 16,
            "nemo_conv_channels": 8,
            "input_size": 16,
            "bias_max_distance": 20,
            "chunk_size": -1,
        },
        "vision_config": {"crop_size": 8},
    },
    "qwen4_exp_text": _QWEN_4,
    "qwen4_exp": {"text_config": _QWEN_4},
    "reformer": {
        "is_decoder": True,
        "attention_head_size": 8,
        "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [8, 8],
        "attn_layers": ["local", "lsh", "local"],
        "num_buckets": 4,
    },
    "roc_bert": {
        "pronunciation_embed_dim": 8,
        "pronunciation_vocab_size": ROWS,
        "shape_embed_dim": 8,
        "shape_vocab_size": ROWS,
    },
    "xlnet": {"d_head": 4},
    "youtu": {"pad_token_id": None},  # transformers zeroes the row of that token when it loads
    "zamba": {
        "num_hidden_layers": 4,
        "num_key_value_heads": 4,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "n_mamba_heads": 2,
        "attention_hidden_size": 32,
        "attention_head_dim": 8,
        "use_mamba_kernels": False,
    },
    "zamba2": {
        "num_key_value_heads": 4,
        "layers_block_type": ["mamba", "hybrid", "mamba"],
        "attention_hidden_size": 32,
        "attention_head_dim": 8,
        "use_mamba_kernels": False,
    },
    "zaya": {"num_experts_per_tok": 1},
}
"""model_type -> settings that take the place of those by name; None leaves the class's own."""


def tiny_config(model_type: str) -> PreTrainedConfig:
    """A small configuration of a type. Raises whatever its class raises for what does not suit."""
    return _tiny(CONFIG_MAPPING[model_type], SPECIAL.get(model_type, {}))


def _tiny(
    kind: type[PreTrainedConfig], special: Mapping[str, Any], *, depth: int = DEPTH
) -> PreTrainedConfig:
    full = _full(kind)
    fields = getattr(kind, "__dataclass_fields__", {})
    settings: dict[str, Any] = {}
    for key in dict.fromkeys([*fields, *(full.to_dict() if full else ())]):
        if key in kind.sub_configs:
            own, inner = getattr(full, key, None), kind.sub_configs[key]
            if not hasattr(inner, "model_type"):  # any class; that of the default
                inner = type(own)
            if issubclass(inner, PreTrainedConfig) and (own is not None or key in special):
                depth = TOWER_DEPTH if key in _TOWERS else DEPTH
                settings[key] = _tiny(inner, special.get(key, {}), depth=depth)
        elif key in _DEPTHS and key in fields:
            settings[key] = depth
        elif key in _SIZES and key in fields:
            # Attention over compressed keys and values has as many heads of both kinds.
            alike = key == "num_key_value_heads" and "kv_lora_rank" in fields
            settings[key] = _SIZES["num_attention_heads" if alike else key]
        elif key in _TOKENS:
            settings[key] = _TOKENS[key]
        elif key.endswith(("_token_id", "_token_index")):
            settings[key] = _OTHER_TOKEN
        elif key in _BY_LAYER and getattr(full, key, None):
            kinds = list(dict.fromkeys(getattr(full, key)))
            settings[key] = [kinds[number % len(kinds)] for number in range(depth)]
        elif key == "deepstack_visual_indexes":
            settings[key] = [0]
    settings |= {key: value for key, value in special.items() if key not in kind.sub_configs}
    return kind(**settings)


def _full(kind: type[PreTrainedConfig]) -> PreTrainedConfig | None:
    """The configuration of a class's defaults; None where they do not suit it."""
    try:
        return kind()
    except Exception:  # each class checks its settings in its own way
        return None
