"""A cache of arrays that depend on the sources alone, so that each is computed once.

Small arrays stay in memory. Large arrays are mapped files beside the run: they take no memory of
their own, all workers of a machine share them, and they survive an interruption. One limit holds
for all arrays together.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEFAULT_LIMIT_BYTES = 4 * 2**30
_IN_MEMORY_BYTES = 2**18
"""Arrays up to this size are not worth a file."""

_FORM = "1"
"""Part of every file's name. A new number here makes later releases ignore older files."""

Key = tuple[str, ...]


class TensorCache:
    """Arrays by key, up to a limit.

    limit_bytes: of all arrays together; 0 keeps none. folder: where large ones are written, made
    when needed; None keeps them in memory. The first arrays stay. A search reads the same arrays in
    the same order every time, so dropping the oldest would drop each array just before its next
    use.
    """

    def __init__(
        self, *, limit_bytes: int = DEFAULT_LIMIT_BYTES, folder: Path | None = None
    ) -> None:
        self._left_bytes = limit_bytes
        self._folder = folder
        self._arrays: dict[Key, NDArray[Any]] = {}
        self._remove_leftovers()

    def keeps(self, key: Key, size_bytes: int) -> bool:
        """Whether an array of this size is kept already or would be."""
        return key in self._arrays or size_bytes <= self._left_bytes

    def get(self, key: Key, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The array of that key. If it is new, it is made, and kept if there is room."""
        known = self._arrays.get(key)
        if known is not None:
            return known
        array = self._stored(key)
        if array is None:
            array = make()
            if array.nbytes > self._left_bytes:
                return array
            array = self._store(key, array)
        self._left_bytes -= array.nbytes
        self._arrays[key] = array
        return array

    def _path(self, key: Key) -> Path | None:
        if self._folder is None:
            return None
        text = "\n".join((_FORM, *key))
        name = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        return self._folder / f"{name}.npy"

    def _stored(self, key: Key) -> NDArray[Any] | None:
        path = self._path(key)
        if path is None or not path.exists():
            return None
        try:
            array = _mapped(path)
        except (OSError, ValueError, EOFError):  # damaged by a crash: make it again
            return None
        return array if array.nbytes <= self._left_bytes else None

    def _store(self, key: Key, array: NDArray[Any]) -> NDArray[Any]:
        """The array as it is kept: mapped from its file, or unchanged where it has no file."""
        path = self._path(key)
        if path is None or array.nbytes <= _IN_MEMORY_BYTES:
            return array
        # A full disk makes the search slower, but does not end it.
        with contextlib.suppress(OSError, ValueError):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}.partial")
            try:
                with partial.open("wb") as stream:
                    np.save(stream, array, allow_pickle=False)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
            return _mapped(path)
        return array

    def _remove_leftovers(self) -> None:
        """Delete partial files of processes that have ended."""
        if self._folder is None:
            return
        for partial in self._folder.glob("*.partial"):
            process = partial.name.split(".")[-2]
            if process.isdecimal() and not _runs(int(process)):
                partial.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _mapped(path: Path) -> NDArray[Any]:
    """The array in a file, mapped copy-on-write: nothing is written back to the file."""
    array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    return array
