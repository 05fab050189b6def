"""The hash of a file that is still being written: another thread reads what is complete.

The bytes come from the page cache, where the writer has just put them.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

_STEP_BYTES = 2**24


class RunningHash:
    """The sha256 of a file whose start is complete up to a place that only moves on."""

    def __init__(self, path: Path) -> None:
        """path: of a file that exists."""
        self._path = path
        self._complete = 0
        self._ended = False
        self._changed = threading.Condition()
        self._digest = hashlib.sha256()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def reach(self, end: int) -> None:
        """The bytes before `end` are in the file and will not change."""
        with self._changed:
            self._complete = end
            self._changed.notify()

    def stop(self) -> None:
        """The file has no more bytes than it reached, or nobody wants its hash."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def hexdigest(self) -> str:
        """The hash of all bytes that were reached. Raises OSError where they are unreadable."""
        self.stop()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._digest.hexdigest()

    def _follow(self) -> None:
        try:
            with self._path.open("rb") as stream:
                place = 0
                while (end := self._next(place)) > place:
                    while place < end:
                        piece = stream.read(min(_STEP_BYTES, end - place))
                        if not piece:
                            raise OSError(f"{self._path.name}: cut short while it was written")
                        self._digest.update(piece)
                        place += len(piece)
        except Exception as error:  # raised to whoever asks for the hash
            self._error = error

    def _next(self, place: int) -> int:
        """Up to where to read: a step further at least, or to the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._complete >= place + _STEP_BYTES)
            return self._complete
