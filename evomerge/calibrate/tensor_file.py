"""A safetensors file that is filled in place, so that sums may be larger than memory.

The tensors are pages of the file: the system writes them out when memory runs short. The file
appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from evomerge.errors import RunError, StorageError

_ITEM_BYTES = 4
_ALIGNMENT_BYTES = 8


@contextlib.contextmanager
def new_tensor_file(
    path: Path, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]
) -> Iterator[Mapping[str, torch.Tensor]]:
    """Float32 zeros by name, to be written to; they become the file when the block ends well.

    What a killed attempt left is overwritten. Raises StorageError if the disk cannot hold it,
    RunError if another process is writing the same file; no part of it is left in either case.
    """
    with (
        new_file(path, file_bytes(shapes, metadata)) as stream,
        tensors_in(stream, shapes, metadata) as tensors,
    ):
        yield tensors


@contextlib.contextmanager
def new_file(path: Path, size_bytes: int) -> Iterator[BinaryIO]:
    """A file of zeros with room for so many bytes; it is at its path when the block ends well.

    Raises as `new_tensor_file`.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as stream:
            _hold(stream.fileno(), path)
            try:
                stream.truncate(0)
                # Reserved now, since a full disk would kill the process at some later write.
                os.posix_fallocate(stream.fileno(), 0, size_bytes)
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
                os.replace(partial, path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror}), {size_bytes / 1e9:.3f} GB are needed; "
            "make room or give another --out"
        ) from error


@contextlib.contextmanager
def unnamed_file(size_bytes: int) -> Iterator[BinaryIO]:
    """A file of zeros that has no name, so that nothing is left of it however this process ends.

    Raises StorageError if the folder for temporary files cannot hold it.
    """
    try:
        with tempfile.TemporaryFile() as stream:
            os.posix_fallocate(stream.fileno(), 0, size_bytes)
            yield stream
    except OSError as error:
        raise StorageError(
            f"{tempfile.gettempdir()}: cannot hold {size_bytes / 1e9:.3f} GB of statistics "
            f"({error.strerror}); make room, or start Ray there with another TMPDIR"
        ) from error


@contextlib.contextmanager
def tensors_in(
    stream: BinaryIO, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]
) -> Iterator[Mapping[str, torch.Tensor]]:
    """Float32 tensors by name that are pages of a file of `file_bytes` zeros."""
    header, size_bytes = _header(shapes, metadata)
    stream.write(header)
    stream.flush()
    tensors, pages = _map(stream, len(header), size_bytes, shapes)
    yield tensors
    pages.flush()


def file_bytes(shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> int:
    """The size of the file of these tensors."""
    header, size_bytes = _header(shapes, metadata)
    return len(header) + size_bytes


def _header(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]
) -> tuple[bytes, int]:
    """The bytes before the data, and how many bytes of data follow."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * _ITEM_BYTES
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    return len(text).to_bytes(8, "little") + text, end


def _map(
    file: BinaryIO, start: int, size_bytes: int, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, torch.Tensor], np.memmap[tuple[int, ...], np.dtype[np.float32]]]:
    pages = np.memmap(
        file, dtype=np.float32, mode="r+", offset=start, shape=(size_bytes // _ITEM_BYTES,)
    )
    flat = torch.from_numpy(pages)
    tensors = {}
    position = 0
    for name, shape in shapes.items():
        count = math.prod(shape)
        tensors[name] = flat[position : position + count].view(shape)
        position += count
    return tensors, pages


def _hold(descriptor: int, path: Path) -> None:
    """Take the kernel's lock on the unfinished file; it ends with the process."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunError(
            f"{path}: another process is writing it; wait for that, or give another --out"
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
