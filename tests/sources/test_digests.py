"""Hashes that are read in the background, and the bits of numbers that are not finite."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from evomerge.errors import SourceError
from evomerge.sources import begin_reading, digests, not_finite, open_source
from tests.checkpoints import load_tensors, replace_tensors, save_tiny_llama

UP = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_numbers_that_are_not_finite_are_told_by_their_bits(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    usual = torch.tensor([0.0, -0.0, 1.0, -1.0, largest, -largest, torch.finfo(dtype).tiny])
    special = [[], [float("nan")], [-float("nan")], [float("inf")], [-float("inf")]]
    special += [[float("inf"), float("nan")], [-float("inf"), float("inf")]]
    for some in (usual, usual[:0], -usual.abs(), usual.abs()):
        for more in special:
            values = torch.cat([some, torch.tensor(more)]).to(dtype)
            piece = memoryview(values.view(torch.uint8).numpy()) if len(values) else memoryview(b"")
            named = str(dtype).removeprefix("torch.")
            assert digests.not_finite_bytes(piece, named) == not_finite(values)


def test_a_file_over_several_blocks_of_several_dtypes_is_hashed_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_BLOCK_BYTES", 1024)
    folder = save_tiny_llama(tmp_path / "m", seed=0, dtype=torch.bfloat16)
    replace_tensors(
        folder, {"model.norm.weight": load_tensors(folder)["model.norm.weight"].float()}
    )
    found = open_source(str(folder), where="test").sha256()
    for name, digest in found.items():
        assert digest == hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_what_was_read_in_the_background_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_llama(tmp_path / "m", seed=0, shards=3)
    plain = open_source(str(folder), where="test").sha256()
    begin_reading([folder, folder])
    for future in list(digests._readings.values()):
        future.result()
    with monkeypatch.context() as patched:
        patched.setattr(digests, "_read_weights", None)
        assert open_source(str(folder), where="test").sha256() == plain
    assert not digests._readings  # used once, so that a later change is seen
    assert open_source(str(folder), where="test").sha256() == plain


def test_a_fault_found_in_the_background_is_said_of_the_model(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "m", seed=0)
    changed = load_tensors(folder)[UP]
    changed[0, 0] = float("nan")
    replace_tensors(folder, {UP: changed})
    begin_reading([folder, tmp_path / "nowhere"])
    with pytest.raises(SourceError, match=rf"{folder}: {UP} in model\.safetensors holds NaN"):
        open_source(str(folder), where="test").sha256()


def test_a_file_that_changed_since_is_read_again(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "m", seed=0)
    begin_reading([folder])
    for future in list(digests._readings.values()):
        future.result()
    replace_tensors(folder, {"model.norm.weight": torch.zeros(3, 5)})
    file = folder / "model.safetensors"
    digest = digests.Digests("test").of({file.name: file})[file.name]
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()
