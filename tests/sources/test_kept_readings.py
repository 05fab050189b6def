"""Hashes that earlier processes computed: believed as long as the file is the one they read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from evomerge.errors import SourceError
from evomerge.sources import digests, kept_readings, open_source
from tests.checkpoints import load_tensors, replace_tensors, save_tiny_llama

UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the readings, on a machine where a file counts as large and settled at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_readings, "_LEAST_BYTES", 0)
    monkeypatch.setattr(kept_readings, "_SETTLED_S", -1.0)
    return tmp_path / "cache" / "evomerge" / "readings"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read, by name."""
    read, names = digests._read, []

    def noted(path: Path, named: str) -> kept_readings.Reading:
        names.append(path.name)
        return read(path, named)

    monkeypatch.setattr(digests, "_read", noted)
    return names


def hashes(folder: Path) -> dict[str, str]:
    """As a new process asks for them."""
    return dict(open_source(str(folder), where="test").sha256())


def test_a_file_is_read_once(kept: Path, tmp_path: Path, reads: list[str]) -> None:
    folder = save_tiny_llama(tmp_path / "m", seed=0)
    assert hashes(folder) == hashes(folder)
    assert reads == ["model.safetensors"]


def overwrite(file: Path) -> None:
    """Other bytes of the same length; the time of the content is set back."""
    facts, data = file.stat(), bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    touch(file, facts)


def touch(file: Path, before: os.stat_result | None = None) -> None:
    """Until the clock of the file system has gone on, which may be coarse."""
    facts = before or file.stat()
    while file.stat().st_ctime_ns == facts.st_ctime_ns:
        os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def replace(file: Path) -> None:
    other = file.with_name("other")
    shutil.copy2(file, other)
    os.replace(other, file)


@pytest.mark.parametrize("change", [overwrite, replace, touch])
def test_a_file_that_changed_is_read_again(
    kept: Path, tmp_path: Path, reads: list[str], change: Callable[[Path], None]
) -> None:
    folder = save_tiny_llama(tmp_path / "m", seed=0)
    before = hashes(folder)["model.safetensors"]
    change(folder / "model.safetensors")
    assert (hashes(folder)["model.safetensors"] == before) == (change is not overwrite)
    assert len(reads) == 2


def test_a_file_that_changed_shortly_before_is_read_each_time(
    kept: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_readings, "_SETTLED_S", 60.0)
    folder = save_tiny_llama(tmp_path / "m", seed=0)
    hashes(folder)
    hashes(folder)
    assert len(reads) == 2
    assert not kept.exists()


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, read = save_tiny_llama(tmp_path / "m", seed=0), digests._read

    def changing(path: Path, named: str) -> kept_readings.Reading:
        reading = read(path, named)
        overwrite(path)
        return reading

    monkeypatch.setattr(digests, "_read", changing)
    hashes(folder)
    assert not kept.exists()


@pytest.mark.parametrize("damage", ["", "{}", "[", "[" * 100_000, "other hash"])
def test_a_damaged_document_is_not_believed(
    kept: Path, tmp_path: Path, reads: list[str], damage: str
) -> None:
    folder = save_tiny_llama(tmp_path / "m", seed=0)
    before = hashes(folder)
    (file,) = kept.iterdir()
    if damage == "other hash":
        document = json.loads(file.read_text())
        damage = json.dumps({**document, "sha256": "0" * 64})
    file.write_text(damage)
    assert hashes(folder) == before
    assert len(reads) == 2


def test_a_fault_is_kept_too(kept: Path, tmp_path: Path, reads: list[str]) -> None:
    folder = save_tiny_llama(tmp_path / "m", seed=0)
    changed = load_tensors(folder)[UP]
    changed[0, 0] = float("nan")
    replace_tensors(folder, {UP: changed})
    for _ in range(2):
        with pytest.raises(SourceError, match=rf"{folder}: {UP} in model\.safetensors holds NaN"):
            hashes(folder)
    assert len(reads) == 1


def test_files_that_cannot_be_written_are_no_error(
    kept: Path, tmp_path: Path, reads: list[str]
) -> None:
    (tmp_path / "cache").write_text("a file")
    folder = save_tiny_llama(tmp_path / "m", seed=0)
    assert hashes(folder) == hashes(folder)
    assert len(reads) == 2
