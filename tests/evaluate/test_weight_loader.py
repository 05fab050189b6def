"""Places of tensors in live models, where a checkpoint or two rules of transformers disagree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers.core_model_loading import Interleave, Transpose, WeightConverter

from evomerge.errors import SourceError
from evomerge.evaluate.engines import weight_loader
from evomerge.evaluate.engines.live_model import build_model
from evomerge.evaluate.engines.weight_loader import WeightLoader
from tests.architectures import save_architecture
from tests.checkpoints import load_tensors


def loader_of(folder: Path) -> tuple[WeightLoader, torch.nn.Module]:
    model = build_model(
        folder, dtype="float32", device=torch.device("cpu"), trust_remote_code=False
    )
    return WeightLoader(model), model


def test_more_experts_than_the_configuration_says_are_refused_in_one_line(tmp_path: Path) -> None:
    folder = save_architecture(tmp_path / "model", "qwen3_moe")
    config = json.loads((folder / "config.json").read_text())
    config.pop("num_local_experts", None)
    (folder / "config.json").write_text(json.dumps({**config, "num_experts": 1}))
    loader, _ = loader_of(folder)
    with pytest.raises(SourceError, match="has 1 experts in a layer") as caught:
        loader.fill(load_tensors(folder).items())
    assert "\n" not in str(caught.value)


def test_of_two_rules_for_a_pattern_the_last_is_applied_as_transformers_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_architecture(tmp_path / "model", "llama")
    name = "model.layers.0.self_attn.q_proj.weight"
    pattern = "layers.0.self_attn.q_proj.weight"
    rules = [
        WeightConverter(pattern, pattern, operations=[operation])
        for operation in (Transpose(0, 1), Interleave(0))
    ]
    monkeypatch.setattr(weight_loader, "get_model_conversion_mapping", lambda model: rules)
    loader, model = loader_of(folder)
    tensors = load_tensors(folder)
    loader.fill(tensors.items())
    weight = tensors[name]
    halves = torch.cat([weight[0::2], weight[1::2]])
    assert torch.equal(model.get_parameter(name), halves)
