"""Tiny random checkpoints of many architectures, saved the way transformers saves real ones.

Experts differ from their base by noise on the stored tensors, whatever class of model these make.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import PreTrainedConfig, PreTrainedModel

from tests.checkpoints import load_tensors

ROWS = 40
"""Words of every vocabulary; unlike every other dimension, so that nothing fits by accident."""

_TEXT = {
    "vocab_size": ROWS,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_ENCODER = {key: value for key, value in _TEXT.items() if key != "num_key_value_heads"}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 12, "num_experts": 3}


def _of(kind: str, **settings: object) -> PreTrainedConfig:
    config: PreTrainedConfig = getattr(transformers, kind)(**settings)
    return config


def _llava(**text: object) -> PreTrainedConfig:
    vision = {
        "hidden_size": 16,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
        "projection_dim": 16,
    }
    return _of(
        "LlavaConfig",
        text_config=_of("LlamaConfig", **{**_TEXT, **text}).to_dict(),
        vision_config=_of("CLIPVisionConfig", **vision).to_dict(),
        image_token_id=3,
        vision_feature_layer=-1,
    )


def _qwen2_vl() -> PreTrainedConfig:
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 4}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 0]}
    return _of(
        "Qwen2VLConfig",
        text_config={**_TEXT, "rope_parameters": rope, "tie_word_embeddings": True},
        vision_config=vision,
        image_token_id=3,
        video_token_id=4,
        tie_word_embeddings=True,
    )


def _paligemma() -> PreTrainedConfig:
    vision = {
        "hidden_size": 16,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
        "projection_dim": 16,
    }
    return _of(
        "PaliGemmaConfig",
        text_config={**_TEXT, "model_type": "gemma", "head_dim": 8},
        vision_config={**vision, "model_type": "siglip_vision_model"},
        image_token_index=3,
        projection_dim=16,
        hidden_size=16,
        vocab_size=ROWS,
    )


ARCHITECTURES: Mapping[str, tuple[str, Callable[[], PreTrainedConfig]]] = {
    "llama": ("LlamaForCausalLM", lambda: _of("LlamaConfig", **_TEXT)),
    "mistral": ("MistralForCausalLM", lambda: _of("MistralConfig", **_TEXT)),
    "qwen2": (
        "Qwen2ForCausalLM",
        lambda: _of("Qwen2Config", **_TEXT, tie_word_embeddings=True),
    ),
    "qwen3": ("Qwen3ForCausalLM", lambda: _of("Qwen3Config", **_TEXT, head_dim=8)),
    "gemma2": ("Gemma2ForCausalLM", lambda: _of("Gemma2Config", **_TEXT, head_dim=8)),
    "gemma3": ("Gemma3ForCausalLM", lambda: _of("Gemma3TextConfig", **_TEXT, head_dim=8)),
    "phi3": ("Phi3ForCausalLM", lambda: _of("Phi3Config", **_TEXT)),
    "olmo2": ("Olmo2ForCausalLM", lambda: _of("Olmo2Config", **_TEXT)),
    "gpt2": (
        "GPT2LMHeadModel",
        lambda: _of("GPT2Config", vocab_size=ROWS, n_embd=16, n_layer=3, n_head=4, n_positions=64),
    ),
    "gpt_neox": ("GPTNeoXForCausalLM", lambda: _of("GPTNeoXConfig", **_ENCODER)),
    "mixtral": (
        "MixtralForCausalLM",
        lambda: _of("MixtralConfig", **_TEXT, num_local_experts=3),
    ),
    "qwen3_moe": ("Qwen3MoeForCausalLM", lambda: _of("Qwen3MoeConfig", **_TEXT, **_EXPERTS)),
    "mamba": (
        "MambaForCausalLM",
        lambda: _of(
            "MambaConfig", vocab_size=ROWS, hidden_size=16, num_hidden_layers=3, state_size=4
        ),
    ),
    "bert": ("BertForMaskedLM", lambda: _of("BertConfig", **_ENCODER)),
    "bert_classifier": (
        "BertForSequenceClassification",
        lambda: _of("BertConfig", **_ENCODER, num_labels=3),
    ),
    "llama_classifier": (
        "LlamaForSequenceClassification",
        lambda: _of("LlamaConfig", **_TEXT, num_labels=3),
    ),
    "t5": (
        "T5ForConditionalGeneration",
        lambda: _of(
            "T5Config",
            vocab_size=ROWS,
            d_model=16,
            d_kv=4,
            d_ff=24,
            num_layers=2,
            num_decoder_layers=3,
            num_heads=4,
            decoder_start_token_id=0,
        ),
    ),
    "llava": ("LlavaForConditionalGeneration", _llava),
    "qwen2_vl": ("Qwen2VLForConditionalGeneration", _qwen2_vl),
}
"""Name -> the class of model, and its configuration."""

_MAMBA2 = {
    "mamba_n_heads": 4,
    "mamba_d_head": 8,
    "mamba_d_state": 4,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}
_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
}
_KINDS = ["linear_attention", "full_attention", "linear_attention"]

OTHER_PASTS: Mapping[str, tuple[str, Callable[[], PreTrainedConfig]]] = {
    "mamba2": (
        "Mamba2ForCausalLM",
        lambda: _of(
            "Mamba2Config",
            vocab_size=ROWS,
            hidden_size=16,
            num_hidden_layers=3,
            state_size=4,
            num_heads=4,
            head_dim=8,
            n_groups=1,
            chunk_size=8,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
    ),
    "falcon_mamba": (
        "FalconMambaForCausalLM",
        lambda: _of(
            "FalconMambaConfig",
            vocab_size=ROWS,
            hidden_size=16,
            num_hidden_layers=3,
            state_size=4,
            bos_token_id=1,
            eos_token_id=2,
        ),
    ),
    "lfm2": (
        "Lfm2ForCausalLM",
        lambda: _of("Lfm2Config", **_TEXT, full_attn_idxs=[1], block_multiple_of=8),
    ),
    "lfm2_moe": (
        "Lfm2MoeForCausalLM",
        lambda: _of(
            "Lfm2MoeConfig",
            **_TEXT,
            **_EXPERTS,
            num_dense_layers=1,
            layer_types=["conv", "full_attention", "conv"],
        ),
    ),
    "jamba": (
        "JambaForCausalLM",
        lambda: _of(
            "JambaConfig",
            **_TEXT,
            num_experts=3,
            attn_layer_period=2,
            attn_layer_offset=1,
            mamba_d_state=4,
            mamba_dt_rank=4,
            use_mamba_kernels=False,
        ),
    ),
    "qwen3_next": (
        "Qwen3NextForCausalLM",
        lambda: _of(
            "Qwen3NextConfig",
            **_TEXT,
            **_EXPERTS,
            **_LINEAR,
            head_dim=8,
            shared_expert_intermediate_size=12,
            layer_types=_KINDS,
        ),
    ),
    "qwen3_5": (
        "Qwen3_5ForCausalLM",
        lambda: _of("Qwen3_5TextConfig", **_TEXT, **_LINEAR, head_dim=8, layer_types=_KINDS),
    ),
    "olmo_hybrid": (
        "OlmoHybridForCausalLM",
        lambda: _of("OlmoHybridConfig", **_TEXT, **_LINEAR, layer_types=_KINDS),
    ),
    "recurrent_gemma": (
        "RecurrentGemmaForCausalLM",
        lambda: _of(
            "RecurrentGemmaConfig",
            vocab_size=ROWS,
            hidden_size=16,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            attention_window_size=32,
            lru_width=16,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
    ),
    "falcon_h1": (
        "FalconH1ForCausalLM",
        lambda: _of("FalconH1Config", **_TEXT, **_MAMBA2, mamba_d_ssm=32),
    ),
    "bamba": (
        "BambaForCausalLM",
        lambda: _of("BambaConfig", **_TEXT, **_MAMBA2, attn_layer_indices=[1]),
    ),
    "granite_hybrid": (
        "GraniteMoeHybridForCausalLM",
        lambda: _of(
            "GraniteMoeHybridConfig",
            **_TEXT,
            **_MAMBA2,
            num_local_experts=0,
            shared_intermediate_size=24,
            layer_types=["mamba", "attention", "mamba"],
        ),
    ),
    "nemotron_h": (
        "NemotronHForCausalLM",
        lambda: _of(
            "NemotronHConfig",
            **{**_TEXT, "num_hidden_layers": 4},
            layers_block_type=["mamba", "attention", "moe", "mamba"],
            head_dim=8,
            mamba_num_heads=4,
            mamba_head_dim=8,
            ssm_state_size=4,
            n_groups=1,
            chunk_size=8,
            n_routed_experts=3,
            moe_intermediate_size=12,
            moe_shared_expert_intermediate_size=12,
            use_mamba_kernels=False,
        ),
    ),
    "zamba": (
        "ZambaForCausalLM",
        lambda: _of(
            "ZambaConfig",
            **{**_TEXT, "num_key_value_heads": 4, "num_hidden_layers": 4},
            n_mamba_heads=2,
            mamba_d_state=4,
            mamba_dt_rank=4,
            layers_block_type=["mamba", "hybrid", "mamba", "hybrid"],
            use_mamba_kernels=False,
        ),
    ),
    "zamba2": (
        "Zamba2ForCausalLM",
        lambda: _of(
            "Zamba2Config",
            **{**_TEXT, "num_key_value_heads": 4},
            layers_block_type=["mamba", "hybrid", "mamba"],
            mamba_d_state=4,
            n_mamba_heads=4,
            mamba_headdim=8,
            chunk_size=8,
            adapter_rank=4,
            use_mamba_kernels=False,
        ),
    ),
    "rwkv": (
        "RwkvForCausalLM",
        lambda: _of(
            "RwkvConfig",
            vocab_size=ROWS,
            hidden_size=16,
            num_hidden_layers=3,
            context_length=64,
            bos_token_id=1,
            eos_token_id=2,
        ),
    ),
    "minimax": (
        "MiniMaxForCausalLM",
        lambda: _of(
            "MiniMaxConfig", **_TEXT, num_local_experts=3, block_size=8, layer_types=_KINDS
        ),
    ),
    "paligemma": ("PaliGemmaForConditionalGeneration", _paligemma),
}
"""Those whose past is more than keys and values, or that read a text in a way of their own."""


def save_architecture(
    folder: Path, name: str, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Path:
    """Save a random checkpoint of an architecture and return its folder."""
    kind, configure = {**ARCHITECTURES, **OTHER_PASTS}[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = getattr(transformers, kind)(configure()).to(dtype)
        with torch.no_grad():
            for parameter in model.parameters():  # none of them all zeros or all ones
                parameter.add_(0.05 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    return folder


def save_expert(folder: Path, *, of: Path, seed: int, scale: float = 0.02) -> Path:
    """Save a checkpoint with normal noise of deviation `scale` on every tensor of floats."""
    shutil.copytree(of, folder)
    generator = torch.Generator().manual_seed(seed)
    write_tensors(
        folder,
        {
            name: (tensor + scale * torch.randn(tensor.shape, generator=generator)).to(tensor.dtype)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in load_tensors(of).items()
        },
    )
    return folder


def write_tensors(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Make these the tensors of a single-file checkpoint."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})


def load_whole(folder: Path, name: str) -> PreTrainedModel:
    """Load a checkpoint with plain transformers; every tensor must have its place, and be there."""
    kind, _ = {**ARCHITECTURES, **OTHER_PASTS}[name]
    model, found = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    wrong = {what: keys for what, keys in found.items() if keys}
    assert not wrong, wrong
    loaded: PreTrainedModel = model
    return loaded
