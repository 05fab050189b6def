"""Facts are kept within the limit, survive in files, and are never wrong."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from evomerge.merge.tensor_cache import TensorCache

LARGE = 2**17  # elements of 8 bytes: past what stays in memory


class Maker:
    """Makes an array and counts how often it had to."""

    def __init__(self, size: int, value: float = 1.0) -> None:
        self.size, self.value, self.calls = size, value, 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return np.full(self.size, self.value)


def test_a_fact_is_made_once() -> None:
    facts, make = TensorCache(), Maker(10)
    first = facts.get(("a", "x"), make)
    assert facts.get(("a", "x"), make) is first
    assert facts.get(("a", "y"), make) is not first
    assert make.calls == 2


def test_the_limit_holds_for_all_together_and_the_first_stay() -> None:
    facts = TensorCache(limit_bytes=1000)
    early, late = Maker(100), Maker(100)
    assert facts.keeps(("early",), 800)
    facts.get(("early",), early)
    assert not facts.keeps(("late",), 800)
    assert facts.keeps(("early",), 800)
    for _ in range(3):
        facts.get(("late",), late)
        facts.get(("early",), early)
    assert (early.calls, late.calls) == (1, 3)


def test_nothing_is_kept_under_a_limit_of_zero() -> None:
    facts, make = TensorCache(limit_bytes=0), Maker(1)
    facts.get(("a",), make)
    facts.get(("a",), make)
    assert make.calls == 2


def test_large_facts_are_files_that_the_next_process_finds(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "facts"
    make = Maker(LARGE, 7.0)
    kept = TensorCache(folder=folder).get(("order", "w"), make)
    assert isinstance(kept, np.memmap)
    again = TensorCache(folder=folder).get(("order", "w"), make)
    assert make.calls == 1
    assert np.array_equal(again, kept)
    assert [file.suffix for file in folder.iterdir()] == [".npy"]


def test_small_facts_make_no_files(tmp_path: Path) -> None:
    TensorCache(folder=tmp_path / "facts").get(("norm",), Maker(3))
    assert not (tmp_path / "facts").exists()


@pytest.mark.parametrize("keep_bytes", [0, 10, 1000])
def test_a_file_torn_by_a_crash_is_made_again(tmp_path: Path, keep_bytes: int) -> None:
    TensorCache(folder=tmp_path).get(("order",), Maker(LARGE, 7.0))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:keep_bytes])
    make = Maker(LARGE, 7.0)
    assert np.array_equal(TensorCache(folder=tmp_path).get(("order",), make), np.full(LARGE, 7.0))
    assert make.calls == 1


def test_a_folder_that_cannot_be_written_costs_only_the_keeping(tmp_path: Path) -> None:
    (tmp_path / "facts").write_text("a file in the folder's place")
    make = Maker(LARGE, 7.0)
    facts = TensorCache(folder=tmp_path / "facts")
    assert float(facts.get(("order",), make)[0]) == 7.0
    assert float(facts.get(("order",), make)[0]) == 7.0
    assert make.calls == 1


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = tmp_path / f"abc.{gone.pid}.partial"
    mine = tmp_path / f"def.{os.getpid()}.partial"
    left.write_bytes(b"half")
    mine.write_bytes(b"half")
    TensorCache(folder=tmp_path)
    assert not left.exists()
    assert mine.exists()


def test_a_kept_fact_may_be_written_to_without_harm_to_its_file(tmp_path: Path) -> None:
    array = TensorCache(folder=tmp_path).get(("order",), Maker(LARGE, 7.0))
    array[0] = 1.0
    again = TensorCache(folder=tmp_path).get(("order",), Maker(LARGE, 0.0))
    assert float(again[0]) == 7.0
