"""Random models of the classes that are served, of sizes that vLLM's kernels have."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from tests.checkpoints import WORDS, word_tokenizer

_SHAPE = {
    "vocab_size": len(WORDS),
    "hidden_size": 128,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama, tied, with biases": LlamaConfig(
        **_SHAPE, tie_word_embeddings=True, attention_bias=True, mlp_bias=True
    ),
    "mistral, sliding": MistralConfig(**_SHAPE, sliding_window=8),
    "qwen2, tied": Qwen2Config(**_SHAPE, tie_word_embeddings=True),
    "qwen3, tied": Qwen3Config(**_SHAPE, head_dim=32, tie_word_embeddings=True),
}
"""Name -> a configuration of three layers with heads of 32 numbers."""


def save_model(folder: Path, kind: str, *, seed: int) -> Path:
    """Save a random checkpoint in float32 and return its folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(CONFIGS[kind])
        with torch.no_grad():
            for parameter in model.parameters():  # none of them all zeros or all ones
                parameter.add_(0.02 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder
