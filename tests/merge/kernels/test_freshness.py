"""Compiled code kept on disk is dropped when any source it may be made of has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.merge.kernels.storage import drop_stale


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.py").write_text("a = 1\n")
    (tmp_path / "b.py").write_text("b = 1\n")
    drop_stale(tmp_path)
    (tmp_path / "__pycache__" / "a.f-1.py311.nbi").write_text("index")
    (tmp_path / "__pycache__" / "a.f-1.py311.1.nbc").write_text("code")
    (tmp_path / "__pycache__" / "a.cpython-311.pyc").write_text("Python's own")
    return tmp_path


def kept(folder: Path) -> set[str]:
    return {file.suffix for file in (folder / "__pycache__").iterdir()} - {".sha256"}


def test_what_was_compiled_of_these_sources_stays(folder: Path) -> None:
    assert not drop_stale(folder)
    assert kept(folder) == {".nbi", ".nbc", ".pyc"}


@pytest.mark.parametrize("file", ["a.py", "b.py", "c.py"])
def test_a_change_to_any_source_drops_all_of_it(folder: Path, file: str) -> None:
    (folder / file).write_text("changed = 2\n")
    assert drop_stale(folder)
    assert kept(folder) == {".pyc"}
    assert not drop_stale(folder)


def test_a_folder_that_cannot_be_written_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").write_text("a file in the folder's place")
    assert not drop_stale(tmp_path)
