"""What fails again and again: a line in the log when it begins, each minute, and at its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from evomerge.errors import EvomergeError

_AGAIN_S = 60.0
"""While it lasts, it is said as often."""


class Outage:
    """Something that a thread tries over and over, such as a database that may be away."""

    def __init__(
        self, log: logging.Logger, what: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """what: a sentence that the reason follows, such as "the queue cannot be looked at"."""
        self._log = log
        self._what = what
        self._clock = clock
        self._began_s: float | None = None
        self._said_s = 0.0

    def failed(self, error: Exception) -> None:
        """A try failed. What evomerge does not know is said with its traceback."""
        now_s = self._clock()
        first = self._began_s is None
        if self._began_s is None:
            self._began_s = now_s
        elif now_s - self._said_s < _AGAIN_S:
            return
        self._said_s = now_s
        since = "" if first else f" (for {now_s - self._began_s:.0f} s now)"
        if isinstance(error, EvomergeError):
            self._log.warning("%s%s: %s", self._what, since, error)
        else:
            self._log.error("%s%s", self._what, since, exc_info=error)

    def worked(self) -> None:
        """A try went well."""
        if self._began_s is not None:
            self._log.warning("%s: over after %.0f s", self._what, self._clock() - self._began_s)
            self._began_s = None
