"""Values that are kept until the files that they come from change: read once, however many ask."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

Mark = tuple[tuple[int, int, int], ...]
"""The state of files: number, size and time of each."""

_KEPT = 64
"""Values that are kept in memory; the one that was asked for longest ago is left first."""
_KEPT_BYTES = 64 * 2**20
"""Their size together, by the same rule; one alone may be larger."""
_SHARE = 0.25
"""Share of the time for reading values again that have changed; the rest is for other requests."""


class Turns:
    """Whose turn it is to read: one reader at a time, and changed records in a share of the time.

    Reading keeps a core busy, which other requests need too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free_at = 0.0

    def wait(self) -> None:
        """Take a turn as soon as there is one."""
        self._lock.acquire()

    def take(self) -> bool:
        """Take a turn if there is one now, after the pause that the last one costs."""
        return time.monotonic() >= self._free_at and self._lock.acquire(blocking=False)

    def leave(self, cost_s: float) -> None:
        """End a turn that took so long."""
        self._free_at = time.monotonic() + cost_s * (1.0 / _SHARE - 1.0)
        self._lock.release()


@dataclass
class _Entry(Generic[T]):
    """A value and the state of the files that it was read from. cost_s: of reading it.

    size: of the value, in bytes.
    """

    lock: threading.Lock
    mark: Mark = ()
    at: float = 0.0
    cost_s: float = 0.0
    size: int = 0
    value: T | None = None


class Kept(Generic[T]):
    """Values by job, read again when the files that they come from have changed.

    A search that runs changes its record all the time. Then a value is read again after ten times
    as long as reading it took, and only where that delays nobody: until then the kept one is given.
    A search that does not run is `settled`: its value is always that of its files.
    """

    def __init__(
        self,
        *,
        most: int = _KEPT,
        most_bytes: int = _KEPT_BYTES,
        size_of: Callable[[T], int] = lambda _value: 0,
        turns: Turns | None = None,
    ) -> None:
        """turns: shared by values that are read in turns; without it each is for itself."""
        self._entries: OrderedDict[str, _Entry[T]] = OrderedDict()
        self._lock = threading.Lock()
        self._most, self._most_bytes, self._size_of = most, most_bytes, size_of
        self._turns = turns

    def get(self, key: str, mark: Mark, read: Callable[[], T], *, settled: bool = False) -> T:
        """The value; `read` makes it, in one thread at a time for a key."""
        with self._lock:
            entry = self._entries.pop(key, None) or _Entry(lock=threading.Lock())
            self._entries[key] = entry
            self._leave_oldest()
        value = entry.value
        if value is not None and not settled:
            if _is_fresh(entry, mark) or not entry.lock.acquire(blocking=False):
                return value
        else:
            entry.lock.acquire()
        try:
            if entry.value is not None and (
                entry.mark == mark
                if settled
                else _is_fresh(entry, mark) or not self._may_read_again()
            ):
                return entry.value
            if self._turns is not None and (settled or entry.value is None):
                self._turns.wait()
            return self._read(entry, mark, read)
        finally:
            entry.lock.release()

    def _may_read_again(self) -> bool:
        return self._turns is None or self._turns.take()

    def _read(self, entry: _Entry[T], mark: Mark, read: Callable[[], T]) -> T:
        """Read a value, in a turn that this thread has."""
        begun = time.monotonic()
        try:
            value = entry.value = read()
        finally:
            entry.at = time.monotonic()
            entry.cost_s = entry.at - begun
            if self._turns is not None:
                self._turns.leave(entry.cost_s)
        entry.mark = mark
        with self._lock:
            entry.size = self._size_of(value)
            self._leave_oldest()
        return value

    def _leave_oldest(self) -> None:
        size = sum(entry.size for entry in self._entries.values())
        while len(self._entries) > self._most or (
            size > self._most_bytes and len(self._entries) > 1
        ):
            _, left = self._entries.popitem(last=False)
            size -= left.size


def _is_fresh(entry: _Entry[T], mark: Mark) -> bool:
    return entry.mark == mark or time.monotonic() - entry.at < 10 * entry.cost_s
