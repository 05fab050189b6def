"""Counting: requests of a token, wrong tokens of an address, open streams."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_MOST_KEYS = 10_000
"""Tokens or addresses that are kept in mind; the one that was quiet longest is forgotten first."""


class Buckets:
    """A token bucket for each key: `rate` requests a second, `burst` of them at once."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._filled: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, key: str) -> float:
        """Take one; 0, or the seconds until one can be taken."""
        now = self._clock()
        with self._lock:
            level, at = self._filled.pop(key, (float(self._burst), now))
            level = min(self._burst, level + (now - at) * self._rate)
            taken = level >= 1.0
            self._filled[key] = (level - 1.0 if taken else level, now)
            if len(self._filled) > _MOST_KEYS:
                self._filled.popitem(last=False)
        return 0.0 if taken else (1.0 - level) / self._rate


class Failures:
    """Wrong tokens of each address, in a sliding window."""

    def __init__(
        self, most: int, window_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._window_s, self._clock = most, window_s, clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, address: str) -> None:
        """Note a wrong token."""
        with self._lock:
            times = self._times.pop(address, deque(maxlen=self._most))
            times.append(self._clock())
            self._times[address] = times
            if len(self._times) > _MOST_KEYS:
                self._times.popitem(last=False)

    def wait_s(self, address: str) -> float:
        """0, or the seconds until the address may try again."""
        with self._lock:
            times = self._times.get(address)
            if times is None or len(times) < self._most:
                return 0.0
            return max(0.0, times[0] + self._window_s - self._clock())


class Places:
    """Open streams, or other things that are open for a while: of all, and of each token."""

    def __init__(self, most: int, most_each: int, *, noun: str = "open streams") -> None:
        self._most, self._most_each, self._noun = most, most_each, noun
        self._open: dict[str, int] = {}

    def problem(self, key: str) -> str | None:
        """Why another stream cannot be opened; None if it can."""
        if self._open.get(key, 0) >= self._most_each:
            return f"the token has {self._most_each} {self._noun}"
        if sum(self._open.values()) >= self._most:
            return f"the server has {self._most} {self._noun}"
        return None

    @contextmanager
    def taken(self, key: str) -> Iterator[None]:
        """Hold a place; the caller has asked `problem` in the same turn of the event loop."""
        self._open[key] = self._open.get(key, 0) + 1
        try:
            yield
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]
