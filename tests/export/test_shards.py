"""Shards written tensor by tensor are those that the format's own library writes whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.export.shards import Form, write_file, write_weights

TENSORS = {
    "norm": torch.randn(33),
    "embedding": torch.randn(50, 7).bfloat16(),
    "positions": torch.arange(5),
    "head": torch.randn(3, 11).half(),
    "scale": torch.tensor(2.5),
    "flags": torch.tensor([True, False, True]),
    "empty": torch.empty(0, 4),
}
FORMS = {name: Form(tuple(tensor.shape), tensor.dtype) for name, tensor in TENSORS.items()}


def test_one_shard_is_the_library_s_to_the_byte(tmp_path: Path) -> None:
    weights = write_weights(TENSORS.items(), FORMS, tmp_path, shard_bytes=10**9)
    save_file(TENSORS, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    written = (tmp_path / "model.safetensors").read_bytes()
    assert written == (tmp_path / "theirs.safetensors").read_bytes()
    again = write_file(tmp_path, "again.safetensors", TENSORS)
    assert again.size_bytes == weights.size_bytes
    assert list(again.sha256.values()) == list(weights.sha256.values())
    assert (tmp_path / "again.safetensors").read_bytes() == written
    assert weights.files == ("model.safetensors",)
    assert weights.size_bytes == sum(tensor.nbytes for tensor in TENSORS.values())


def test_several_shards_hold_every_tensor_once(tmp_path: Path) -> None:
    weights = write_weights(TENSORS.items(), FORMS, tmp_path, shard_bytes=200)
    found: dict[str, torch.Tensor] = {}
    for file in weights.files:
        loaded = load_file(tmp_path / file)
        assert not set(found) & set(loaded)
        found.update(loaded)
    assert len(weights.files) > 2
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


def test_one_piece_of_memory_may_be_given_again_and_again(tmp_path: Path) -> None:
    memory = torch.empty(8)

    def stream() -> object:
        for number in range(4):
            yield f"t{number}", memory.fill_(number)

    forms = {f"t{number}": Form((8,), torch.float32) for number in range(4)}
    write_weights(stream(), forms, tmp_path, shard_bytes=10**9)
    loaded = load_file(tmp_path / "model.safetensors")
    assert [float(loaded[f"t{number}"][0]) for number in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize("missing", ["norm", "head"])
def test_a_stream_that_ends_early_is_an_error_of_ours(tmp_path: Path, missing: str) -> None:
    stream = [(name, tensor) for name, tensor in TENSORS.items() if name != missing]
    with pytest.raises(AssertionError, match="missing"):
        write_weights(stream, FORMS, tmp_path, shard_bytes=10**9)
