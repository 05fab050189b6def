"""A large file written from its start to its end, and its hash.

Whoever makes the bytes makes them in the memory that they are written from; two threads hash and
write them meanwhile. They are written past the page cache where the system can: the pages of a new
file cost it more time than the writing, and take the place of the models that are read.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_BLOCK_BYTES = 4096
"""What is written past the page cache begins and ends at multiples of this, in memory too."""

_STEP_BYTES = 2**23
"""Bytes that are worth waking the threads for."""

_WINDOW_BYTES = 2**24
"""Of the second window, and where the first is left for it if it is larger: pages that were never
written to are slow the first time, so few are."""


class HashedFile:
    """A file that is written in order; to be used as a context, which closes it.

    The bytes are made in two windows of memory: one is filled while those of the other are written.
    The first is large enough for every piece.
    """

    def __init__(self, path: Path, *, largest_bytes: int) -> None:
        """path: of the new file. largest_bytes: of a piece. Raises OSError."""
        largest = _aligned(max(largest_bytes + _BLOCK_BYTES, _WINDOW_BYTES))
        self._windows = (largest, _aligned(_WINDOW_BYTES))
        self._under_way: tuple[list[Future[None]], list[Future[None]]] = ([], [])
        self._now = 0  # the window that is filled
        # In that window: what is before `_begun` was handed over; what is before `_end` was made.
        self._begun = self._end = 0
        self._place = 0  # of `_begun` in the file
        self._digest = hashlib.sha256()
        self._output = _Output(path)
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pool in (self._hasher, self._writer):
            pool.shutdown(cancel_futures=True)
        self._output.close()

    def room(self, size_bytes: int) -> Bytes:
        """Memory for the next bytes of the file; the same until `write`. Raises OSError."""
        end = self._end + size_bytes
        if end > self._windows[self._now].size or (
            self._end >= _BLOCK_BYTES and end > _WINDOW_BYTES
        ):
            self._move(0 if self._now or size_bytes + _BLOCK_BYTES > _WINDOW_BYTES else 1)
        return self._windows[self._now][self._end : self._end + size_bytes]

    def write(self, data: Bytes) -> None:
        """Write the next bytes: those made in `room`, or a copy of others. Raises OSError."""
        room = self.room(data.size)
        if data.ctypes.data != room.ctypes.data:
            room[:] = data
        self._end += data.size
        if self._end - self._begun >= _STEP_BYTES:
            self._hand_over()

    def finish(self) -> str:
        """Write what is left; the sha256 of the whole file. Raises OSError."""
        self._hand_over()
        rest = self._windows[self._now][self._begun : self._end]
        self._submit(rest, self._output.write_rest)
        self._wait(0)
        self._wait(1)
        return self._digest.hexdigest()

    def _move(self, number: int) -> None:
        """Go on at the start of a window, with what is less than a block."""
        self._hand_over()
        rest = self._windows[self._now][self._begun : self._end]
        self._wait(number)
        self._windows[number][: rest.size] = rest
        self._now, self._begun, self._end = number, 0, rest.size

    def _hand_over(self) -> None:
        """Hand whole blocks to the threads."""
        size_bytes = (self._end - self._begun) // _BLOCK_BYTES * _BLOCK_BYTES
        if size_bytes:
            made = self._windows[self._now][self._begun : self._begun + size_bytes]
            self._submit(made, self._output.write)
            self._begun += size_bytes
            self._place += size_bytes

    def _submit(self, made: Bytes, write: Callable[[Bytes, int], None]) -> None:
        self._under_way[self._now].extend(
            (
                self._hasher.submit(self._digest.update, made.data),
                self._writer.submit(write, made, self._place),
            )
        )

    def _wait(self, number: int) -> None:
        """Until a window may be filled again. Raises the error of a thread."""
        for future in self._under_way[number]:
            future.result()
        self._under_way[number].clear()


class _Output:
    """The file as one thread writes it: past the page cache as long as the system takes that."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._direct = getattr(os, "O_DIRECT", 0)
        try:
            self._descriptor = os.open(path, flags | self._direct, 0o666)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._direct = 0  # a file system in memory, for example
            self._descriptor = os.open(path, flags, 0o666)
        self._error: OSError | None = None

    def write(self, made: Bytes, place: int) -> None:
        """Write whole blocks. After an error, nothing more is written: all calls raise it."""
        if self._error is not None:
            raise self._error
        left = made.data
        try:
            while left:
                try:
                    count = os.pwrite(self._descriptor, left, place)
                except OSError as error:
                    if error.errno != errno.EINVAL or not self._direct:
                        raise
                    self._write_by_cache()
                    continue
                left, place = left[count:], place + count
        except OSError as error:
            self._error = error
            raise

    def write_rest(self, made: Bytes, place: int) -> None:
        """Write the end of the file, which may be less than a block."""
        self._write_by_cache()
        self.write(made, place)

    def close(self) -> None:
        """Close the file; nothing is written afterwards."""
        os.close(self._descriptor)

    def _write_by_cache(self) -> None:
        if self._direct:
            stated = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, stated & ~self._direct)
            self._direct = 0


def _aligned(size_bytes: int) -> Bytes:
    """Memory that begins at a whole block."""
    memory = np.empty(size_bytes + _BLOCK_BYTES, np.uint8)
    start = -memory.ctypes.data % _BLOCK_BYTES
    return memory[start : start + size_bytes]
