"""Files that are filled in place: whole or not there, and readable by safetensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from evomerge.calibrate.tensor_file import new_tensor_file
from evomerge.errors import RunError, StorageError

SHAPES: dict[str, tuple[int, ...]] = {"a": (3, 5), "b": (), "empty": (0, 4), "c": (7,)}


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_what_safetensors_reads(tmp_path: Path) -> None:
    path = tmp_path / "made" / "s.safetensors"
    with new_tensor_file(path, SHAPES, {"k": "\u3042", "format": "pt"}) as tensors:
        assert not any(tensor.any() for tensor in tensors.values())
        tensors["a"].copy_(torch.arange(15.0).view(3, 5))
        tensors["b"].fill_(2.5)
        tensors["c"].add_(1)
        assert files(path.parent) == [".s.safetensors.partial"]
    assert files(path.parent) == ["s.safetensors"]
    with safe_open(path, framework="pt") as opened:
        assert opened.metadata() == {"k": "\u3042", "format": "pt"}
        read = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    assert {name: tuple(tensor.shape) for name, tensor in read.items()} == SHAPES
    assert torch.equal(read["a"], torch.arange(15.0).view(3, 5))
    assert (float(read["b"]), read["c"].tolist()) == (2.5, [1.0] * 7)


def test_an_error_leaves_what_was_there_before(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    path.write_bytes(b"before")

    def fail() -> None:
        with new_tensor_file(path, SHAPES, {}) as tensors:
            tensors["a"].fill_(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"before"
    assert files(tmp_path) == ["s.safetensors"]


def test_what_a_killed_attempt_left_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    (tmp_path / ".s.safetensors.partial").write_bytes(b"\xff" * 10_000)
    with new_tensor_file(path, {"a": (2,)}, {}) as tensors:
        assert tensors["a"].tolist() == [0.0, 0.0]
    assert files(tmp_path) == ["s.safetensors"]
    assert path.stat().st_size < 200


def test_a_file_that_another_is_writing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    with new_tensor_file(path, SHAPES, {}) as tensors:
        tensors["a"].fill_(4)
        with pytest.raises(RunError, match="another process is writing it"):
            new_tensor_file(path, SHAPES, {}).__enter__()
        assert files(tmp_path) == [".s.safetensors.partial"], "the first goes on"
    with safe_open(path, framework="pt") as opened:
        assert opened.get_tensor("a").mean() == 4


def test_a_disk_that_cannot_hold_it_is_said_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    with pytest.raises(StorageError, match=r"cannot be written .* GB are needed; make room"):
        new_tensor_file(path, {"a": (2**44, 2**10)}, {}).__enter__()
    assert files(tmp_path) == []
