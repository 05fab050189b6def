"""Shards written tensor by tensor are those that the format's own library writes whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.export.shards import Form, Room, write_file, write_weights
from evomerge.merge import Elements

TENSORS = {
    "norm": torch.randn(33),
    "embedding": torch.randn(50, 7).bfloat16(),
    "positions": torch.arange(5),
    "head": torch.randn(3, 11).half(),
    "scale": torch.tensor(2.5),
    "flags": torch.tensor([True, False, True]),
    "empty": torch.empty(0, 4),
}
FORMS = {
    name: Form(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
    for name, tensor in TENSORS.items()
}


def in_order(order: Sequence[str], room: Room) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, TENSORS[name]) for name in order)


def test_one_shard_is_the_library_s_to_the_byte(tmp_path: Path) -> None:
    weights = write_weights(in_order, FORMS, tmp_path, shard_bytes=10**9)
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
    weights = write_weights(in_order, FORMS, tmp_path, shard_bytes=200)
    found: dict[str, torch.Tensor] = {}
    for file in weights.files:
        loaded = load_file(tmp_path / file)
        assert not set(found) & set(loaded)
        found.update(loaded)
    assert len(weights.files) > 2
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


def test_tensors_may_be_made_in_the_memory_that_they_are_written_from(tmp_path: Path) -> None:
    names = [f"t{number}" for number in range(4)]

    def make(order: Sequence[str], room: Room) -> Iterator[tuple[str, torch.Tensor | Elements]]:
        for number, name in enumerate(order):
            memory = room(name)
            if number % 2:
                yield name, torch.from_numpy(memory).view(torch.float32).fill_(number)
            else:
                memory.view(np.float32)[:] = number
                yield name, Elements(memory.view(np.float32), "float32", (8,))

    write_weights(make, {name: Form((8,), "float32") for name in names}, tmp_path, shard_bytes=70)
    found = [float(load_file(file)[name][0]) for file, name in _places(tmp_path, names)]
    assert found == [0, 1, 2, 3]


def _places(folder: Path, names: Sequence[str]) -> Iterator[tuple[Path, str]]:
    weight_map = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    return ((folder / weight_map[name], name) for name in names)


@pytest.mark.parametrize("missing", ["norm", "flags"])
def test_a_stream_that_ends_early_or_leaves_one_out_is_an_error_of_ours(
    tmp_path: Path, missing: str
) -> None:
    def make(order: Sequence[str], room: Room) -> Iterator[tuple[str, torch.Tensor]]:
        return ((name, TENSORS[name]) for name in order if name != missing)

    with pytest.raises(AssertionError, match="missing"):
        write_weights(make, FORMS, tmp_path, shard_bytes=10**9)
