"""Files that are written in order, hashed meanwhile, past the page cache where that is possible."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from evomerge.export import hashed_file
from evomerge.export.hashed_file import HashedFile


def write(file: Path, pieces: Sequence[bytes], *, largest_bytes: int) -> str:
    """Write pieces, every other one in the memory that the file gives."""
    with HashedFile(file, largest_bytes=largest_bytes) as out:
        for place, piece in enumerate(pieces):
            data = np.frombuffer(piece, np.uint8)
            if place % 2:
                room = out.room(data.size)
                room[:] = data
                data = room
            out.write(data)
        return out.finish()


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashed_file, "_WINDOW_BYTES", 3 * 4096)
    monkeypatch.setattr(hashed_file, "_STEP_BYTES", 4096)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_the_file_holds_all_pieces_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, direct: bool
) -> None:
    if not direct:
        monkeypatch.setattr(os, "O_DIRECT", 0, raising=False)
    drawn = random.Random(seed)
    sizes = [drawn.choice([0, 1, 8, 100, 4095, 4096, 4097, 12288, 50_000]) for _ in range(60)]
    pieces = [drawn.randbytes(size) for size in sizes[: drawn.randrange(61)]]
    digest = write(tmp_path / "file", pieces, largest_bytes=50_000)
    written = (tmp_path / "file").read_bytes()
    assert written == b"".join(pieces)
    assert digest == hashlib.sha256(written).hexdigest()


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("refused_at", ["open", "write"])
def test_a_file_system_that_takes_nothing_past_the_page_cache_gets_it_by_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused_at: str
) -> None:
    refused = []
    real_open, real_write = os.open, os.pwrite

    def refuse(real: object, flags: int, *given: object) -> int:
        if flags & os.O_DIRECT:
            refused.append(flags)
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(*given)  # type: ignore[operator,no-any-return]

    if refused_at == "open":
        monkeypatch.setattr(os, "open", lambda *a, **k: refuse(partial(real_open, **k), a[1], *a))
    else:
        import fcntl

        monkeypatch.setattr(
            os, "pwrite", lambda *a: refuse(real_write, fcntl.fcntl(a[0], fcntl.F_GETFL), *a)
        )
    pieces = [bytes([number]) * 5000 for number in range(9)]
    write(tmp_path / "file", pieces, largest_bytes=5000)
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)
    assert len(refused) == 1


@pytest.mark.usefixtures("small_windows")
def test_an_error_of_writing_ends_the_file_and_nothing_is_written_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def full(*given: object) -> int:
        calls.append(given)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    threads = threading.active_count()
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "file", [bytes(6000)] * 50, largest_bytes=6000)
    assert len(calls) == 1
    assert threading.active_count() == threads
