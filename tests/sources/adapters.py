"""Random PEFT adapters over tiny bases, and what PEFT itself merges them into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

from evomerge.sources import Adapter, open_source
from tests.architectures import ARCHITECTURES, save_architecture
from tests.checkpoints import load_tensors

LLAMA = {"target_modules": ["q_proj", "v_proj", "down_proj"]}


@dataclass(frozen=True)
class Trained:
    """A base, an adapter over it, and the tensors of PEFT's own merge of the two."""

    base: Path
    adapter: Path
    merged: Mapping[str, torch.Tensor]

    def open(self) -> Adapter:
        opened = open_source(str(self.adapter), where="test")
        assert isinstance(opened, Adapter)
        return opened


def train(
    folder: Path, settings: Mapping[str, Any], *, architecture: str = "llama", rows: int = 0
) -> Trained:
    """Save a base and a random adapter over it. rows: of words added to the vocabulary."""
    base = save_architecture(folder / "base", architecture)
    return adapt(base, folder / "adapter", settings, architecture=architecture, rows=rows)


def adapt(
    base: Path,
    folder: Path,
    settings: Mapping[str, Any],
    *,
    architecture: str = "llama",
    rows: int = 0,
    seed: int = 0,
) -> Trained:
    save_adapter(base, folder, settings, architecture=architecture, rows=rows, seed=seed)
    merged = PeftModel.from_pretrained(_load(base, architecture, rows), folder).merge_and_unload()
    out = folder.with_name(f"{folder.name}-merged")
    merged.save_pretrained(out)
    return Trained(base, folder, load_tensors(out))


def save_adapter(
    base: Path,
    folder: Path,
    settings: Mapping[str, Any],
    *,
    architecture: str = "llama",
    rows: int = 0,
    seed: int = 0,
) -> Path:
    """Save a random adapter over a base and return its folder."""
    tuned = get_peft_model(_load(base, architecture, rows), LoraConfig(**settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    tuned.save_pretrained(folder)
    return folder


def _load(base: Path, architecture: str, rows: int) -> transformers.PreTrainedModel:
    kind = getattr(transformers, ARCHITECTURES[architecture][0])
    model: transformers.PreTrainedModel = kind.from_pretrained(base, dtype=torch.float32)
    if rows:
        model.resize_token_embeddings(model.config.vocab_size + rows)
    return model


def weights_of(folder: Path) -> Path:
    """The file that holds an adapter's tensors."""
    return folder / "adapter_model.safetensors"
