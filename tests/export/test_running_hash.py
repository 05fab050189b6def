"""The hash of a file that is still being written."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from evomerge.export.running_hash import RunningHash


@pytest.mark.parametrize("sizes", [[], [0], [1, 0, 5], [1 << 20] * 40])
def test_it_is_the_hash_of_the_whole_file(tmp_path: Path, sizes: list[int]) -> None:
    file = tmp_path / "file"
    with file.open("wb") as stream:
        running = RunningHash(file)
        for size in sizes:
            stream.write(os.urandom(size))
            stream.flush()
            running.reach(stream.tell())
        assert running.hexdigest() == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_that_lacks_what_was_reached_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    running = RunningHash(file)
    running.reach(4)
    with pytest.raises(OSError, match="cut short"):
        running.hexdigest()


def test_nobody_waits_for_a_hash_that_is_not_wanted(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    running = RunningHash(file)
    running.stop()
    running._thread.join(timeout=60)
    assert not running._thread.is_alive()
