"""How long a model's passes take, without waiting for each of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class PassClock:
    """Seconds of one device's passes: of wall time on a CPU, of its own time on a GPU.

    A GPU works after the call that asked it to. Marks in its stream say when a pass began and
    ended; they are read when the seconds are asked for, which waits for the last pass.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = 0.0
        self._marks: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @property
    def seconds(self) -> float:
        """Of all passes so far."""
        if self._marks:
            self._marks[-1][1].synchronize()
            self._seconds += sum(began.elapsed_time(ended) for began, ended in self._marks) / 1000.0
            self._marks.clear()
        return self._seconds

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Within, the time counts."""
        if self._device.type == "cuda":
            began = self._mark()
            yield
            self._marks.append((began, self._mark()))
            return
        started = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - started

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within, no pass counts."""
        kept = self.seconds
        yield
        self._marks.clear()
        self._seconds = kept

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event
