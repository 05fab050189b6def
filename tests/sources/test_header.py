"""Reading ahead of what a file's header names."""

from __future__ import annotations

import mmap
from pathlib import Path

from evomerge.sources.header import Entry, read_ahead


def test_an_empty_tensor_at_the_end_of_a_file_is_not_read_ahead(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(mmap.PAGESIZE))
    empty = Entry(file, "float32", (0,), start=mmap.PAGESIZE, size_bytes=0)
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY) as whole:
        read_ahead(empty, whole)
