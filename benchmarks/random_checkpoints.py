"""Llama-shaped checkpoints of random weights, of any size, for measurements that need no meaning.

Written tensor by tensor, so that making a large one takes no more memory than its largest tensor.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A Llama's dimensions."""

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int = 32000

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor, in the order of the file."""
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            yield prefix + "input_layernorm.weight", (self.hidden,)
            yield prefix + "mlp.down_proj.weight", (self.hidden, self.intermediate)
            yield prefix + "mlp.gate_proj.weight", (self.intermediate, self.hidden)
            yield prefix + "mlp.up_proj.weight", (self.intermediate, self.hidden)
            yield prefix + "post_attention_layernorm.weight", (self.hidden,)
            for name in "kovq":
                yield prefix + f"self_attn.{name}_proj.weight", (self.hidden, self.hidden)
        yield "model.norm.weight", (self.hidden,)
        yield "lm_head.weight", (self.vocabulary, self.hidden)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(torch.Size(shape).numel() for _, shape in self.tensors())

    def config(self) -> dict[str, object]:
        """What config.json says."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.hidden // 64,
            "num_key_value_heads": self.hidden // 64,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "dtype": "bfloat16",
        }


SHAPES = {
    "50M": Shape(hidden=512, intermediate=1536, layers=5),
    "100M": Shape(hidden=640, intermediate=2048, layers=10),
    "200M": Shape(hidden=896, intermediate=2432, layers=14),
    "390M": Shape(hidden=1024, intermediate=3072, layers=24),
    "1.6B": Shape(hidden=2048, intermediate=6144, layers=27),
    "6.7B": Shape(hidden=4096, intermediate=11008, layers=32),
}
"""By the number of weights, roughly."""


def write_family(
    folder: Path, shape: Shape, *, experts: int, device: str = "cpu"
) -> tuple[Path, list[Path]]:
    """A base and experts in bfloat16: each the base with normal noise of a tenth of its deviation.

    device: where the numbers are drawn; other devices draw other numbers. Folders that are there
    already are kept.
    """
    base = folder / "base"
    _write(base, shape, seed=0, of_base=False, device=device)
    others = [folder / f"expert{number}" for number in range(1, experts + 1)]
    for number, expert in enumerate(others, start=1):
        _write(expert, shape, seed=number, of_base=True, device=device)
    return base, others


def _write(folder: Path, shape: Shape, *, seed: int, of_base: bool, device: str) -> None:
    if (folder / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, dimensions in shape.tensors():
        size = 2 * torch.Size(dimensions).numel()
        header[name] = {
            "dtype": "BF16",
            "shape": list(dimensions),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for place, (_, dimensions) in enumerate(shape.tensors()):
            generator = torch.Generator(device).manual_seed(place)
            weights = torch.randn(dimensions, generator=generator, device=device) * 0.02
            if of_base:
                generator.manual_seed(1000 * seed + place)
                weights += torch.randn(dimensions, generator=generator, device=device) * 0.002
            stream.write(weights.bfloat16().cpu().view(torch.uint8).numpy().tobytes())
    (folder / "config.json").write_text(json.dumps(shape.config()), encoding="utf-8")
