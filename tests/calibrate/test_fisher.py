"""The Fisher diagonal, against gradients taken one sequence at a time by plain transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from evomerge.calibrate.fisher import add_fisher, fisher_shapes
from evomerge.errors import InputError
from tests.architectures import ARCHITECTURES, save_architecture
from tests.calibrate.conftest import live, token_ids
from tests.checkpoints import load_tensors, replace_tensors

RTOL = 1e-3
"""Of squares of float32 gradients of two computations, and of the largest in the tensor."""


def fishers(folder: Path, sequences: NDArray[np.int64]) -> dict[str, torch.Tensor]:
    model = live(folder)
    into = {name: torch.zeros(shape) for name, shape in fisher_shapes(model).items()}
    add_fisher(model, sequences, into, lambda count: None)
    return into


def reference(folder: Path, name: str, sequences: NDArray[np.int64]) -> dict[str, torch.Tensor]:
    """Σ (∇ log p)² / (predicted tokens) by parameter name, from transformers' own mean loss."""
    kind = getattr(transformers, ARCHITECTURES[name][0])
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    totals = {key: torch.zeros_like(value) for key, value in model.named_parameters()}
    predicted = sequences.shape[1] - 1
    for sequence in torch.from_numpy(sequences):
        model.zero_grad()
        logits = model(input_ids=sequence[None]).logits[0]
        chosen = torch.log_softmax(logits[:-1], -1)[torch.arange(predicted), sequence[1:]]
        chosen.sum().backward()
        for key, parameter in model.named_parameters():
            if parameter.grad is not None:
                totals[key] += parameter.grad.square()
    return {key: total / (len(sequences) * predicted) for key, total in totals.items()}


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "gemma2", "mamba"])
def test_it_is_the_mean_square_of_the_sequences_gradients(tmp_path: Path, name: str) -> None:
    folder = save_architecture(tmp_path / name, name)
    sequences = token_ids(3, 10)
    found = fishers(folder, sequences)
    wanted = reference(folder, name, sequences)
    stored = load_tensors(folder)
    assert stored.keys() == {key for key in found if "#" not in key}
    for key, diagonal in wanted.items():
        assert_same(found[key], diagonal)


def assert_same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    largest = float(wanted.max())
    assert largest > 0, "the comparison is of something"
    torch.testing.assert_close(found, wanted, rtol=RTOL, atol=RTOL * largest)


def test_experts_held_fused_have_their_own_part_of_the_gradient(tmp_path: Path) -> None:
    folder = save_architecture(tmp_path / "moe", "qwen3_moe")
    sequences = token_ids(3, 10)
    found = fishers(folder, sequences)
    fused = reference(folder, "qwen3_moe", sequences)
    for expert in range(3):
        parts = f"model.layers.1.mlp.experts.{expert}"
        joined = fused["model.layers.1.mlp.experts.gate_up_proj"][expert]
        gate, up = joined.chunk(2)
        down = fused["model.layers.1.mlp.experts.down_proj"][expert]
        for key, diagonal in (("gate_proj", gate), ("up_proj", up), ("down_proj", down)):
            assert_same(found[f"{parts}.{key}.weight"], diagonal)
    assert set(load_tensors(folder)) == {key for key in found if "#" not in key}


def test_what_text_alone_does_not_reach_has_zeros(tmp_path: Path) -> None:
    found = fishers(save_architecture(tmp_path / "m", "llava"), token_ids(2, 10))
    reached = {key: bool(value.any()) for key, value in found.items() if "#" not in key}
    assert reached == {
        key: not key.startswith(("vision_tower.", "multi_modal_projector.")) for key in reached
    }


def test_its_mean_and_norm_are_stored_beside_it(tmp_path: Path) -> None:
    found = fishers(save_architecture(tmp_path / "m", "llama"), token_ids(2, 8))
    diagonals = {key: value for key, value in found.items() if "#" not in key}
    for key, diagonal in diagonals.items():
        torch.testing.assert_close(found[f"{key}#mean"], diagonal.mean(), rtol=1e-5, atol=0)
    flat = torch.cat([diagonal.flatten() for diagonal in diagonals.values()])
    torch.testing.assert_close(found["#norm"], flat.norm(), rtol=1e-5, atol=0)


def test_reading_a_text_twice_changes_nothing(tmp_path: Path) -> None:
    folder = save_architecture(tmp_path / "m", "llama")
    sequences = token_ids(2, 8)
    once, twice = fishers(folder, sequences), fishers(folder, np.tile(sequences, (2, 1)))
    for key, diagonal in once.items():
        torch.testing.assert_close(twice[key], diagonal, rtol=1e-5, atol=0)


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = live(save_architecture(tmp_path / "m", "llama"))
    into = {name: torch.zeros(shape) for name, shape in fisher_shapes(model).items()}
    add_fisher(model, token_ids(1, 8), into, lambda count: None)
    for parameter in model.model.parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad
        assert not parameter._post_accumulate_grad_hooks


def test_gradients_that_are_not_finite_are_refused_in_a_line(tmp_path: Path) -> None:
    folder = save_architecture(tmp_path / "m", "llama")
    replace_tensors(folder, {"model.norm.weight": torch.full((16,), torch.nan)})
    with pytest.raises(InputError, match="its gradients on the text are not finite"):
        fishers(folder, token_ids(1, 8))
