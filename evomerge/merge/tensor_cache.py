"""A cache of arrays that a merge computes once, from the sources alone.

Small ones stay in memory; large ones are files beside the run, mapped, so that they take no memory
of their own, serve every worker of a machine and survive an interruption. A limit holds for all of
them together.
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
"""Part of every file's name; another number makes files of older releases unknown."""

Key = tuple[str, ...]


class TensorCache:
    """Arrays by key, up to a limit.

    limit_bytes: of all arrays together; 0 keeps none. folder: where large ones are
    written, made when needed; None keeps them in memory. What came first stays: a search asks for
    the same arrays in the same order every time, where dropping the oldest would drop each just
    before it is wanted again.
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
        """The array of that key; made, and kept if there is room, where it is not known."""
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
        except (OSError, ValueError, EOFError):  # torn by a crash: it is made again
            return None
        return array if array.nbytes <= self._left_bytes else None

    def _store(self, key: Key, array: NDArray[Any]) -> NDArray[Any]:
        """The array as it will be kept: mapped from its file, or itself where it has none."""
        path = self._path(key)
        if path is None or array.nbytes <= _IN_MEMORY_BYTES:
            return array
        # A full disk costs speed, not the search.
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
        """What processes that are gone were writing."""
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
    """The array in a file; pages are shared until somebody writes, and never written back."""
    array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    return array
