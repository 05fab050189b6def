"""A checkpoint of any size that takes no room: true headers, and files that are one long hole."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from tests.checkpoints import WORDS, word_tokenizer

LLAMA_70B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-5,
    "dtype": "bfloat16",
    "bos_token_id": WORDS.index("<s>"),
    "eos_token_id": WORDS.index("</s>"),
    "pad_token_id": WORDS.index("<pad>"),
}


def shapes_of(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape, of a Llama."""
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    pairs = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    layer = {
        "input_layernorm": (hidden,),
        "mlp.down_proj": (hidden, wide),
        "mlp.gate_proj": (wide, hidden),
        "mlp.up_proj": (wide, hidden),
        "post_attention_layernorm": (hidden,),
        "self_attn.k_proj": (pairs, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.v_proj": (pairs, hidden),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden)
    }
    for number in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{number}.{name}.weight": s for name, s in layer.items()}
    return {
        **shapes,
        "model.norm.weight": (hidden,),
        "lm_head.weight": (config["vocab_size"], hidden),
    }


def save_headers(folder: Path, config: dict[str, Any], *, shards: int = 2) -> Path:
    """A checkpoint in bfloat16 with an index, whose tensors are holes in its files."""
    folder.mkdir(parents=True)
    word_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    shapes = list(shapes_of(config).items())
    places: dict[str, str] = {}
    for number in range(shards):
        part = shapes[number * len(shapes) // shards : (number + 1) * len(shapes) // shards]
        name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        places |= {tensor: name for tensor, _ in part}
        _save(folder / name, dict(part))
    index = {"metadata": {"total_size": 2 * sum(math.prod(s) for _, s in shapes)}}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({**index, "weight_map": places})
    )
    return folder


def _save(file: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
