"""Reading the records of searches for the routes: once for each change, however many ask.

Reading a record is work of some hundred milliseconds, so it is kept until the record's files
change. What needs the large libraries (figures, the report) is made by a process of its own, so
that they are never loaded into the server.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from evomerge.service.http.problems import Problem
from evomerge.service.settings import ServiceSettings
from evomerge.service.store.jobs import Job

if TYPE_CHECKING:
    from evomerge.api import RecordView

T = TypeVar("T")

_KEPT = 64
"""Records that are kept in memory; the one that was asked for longest ago is left first."""
_DRAWING_S = 120.0
"""Seconds that a process may take for figures or a report."""

_Mark = tuple[tuple[int, int, int], ...]


@dataclass
class _Entry(Generic[T]):
    """A value and the state of the files that it was read from. cost_s: of reading it."""

    lock: threading.Lock
    mark: _Mark = ()
    at: float = 0.0
    cost_s: float = 0.0
    value: T | None = None


class Kept(Generic[T]):
    """Values by job, read again when the files that they come from have changed.

    A search that runs changes its record all the time: then a value is read again after ten times
    as long as reading it took, so that watching a large search stays cheap.
    """

    def __init__(self, *, most: int = _KEPT) -> None:
        self._entries: OrderedDict[str, _Entry[T]] = OrderedDict()
        self._lock = threading.Lock()
        self._most = most

    def get(self, key: str, mark: _Mark, read: Callable[[], T]) -> T:
        """The value; `read` makes it, in one thread at a time for a key."""
        with self._lock:
            entry = self._entries.pop(key, None) or _Entry(lock=threading.Lock())
            self._entries[key] = entry
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)
        with entry.lock:
            now = time.monotonic()
            if entry.value is not None and (
                entry.mark == mark or now - entry.at < 10 * entry.cost_s
            ):
                return entry.value
            entry.value = read()
            entry.at = time.monotonic()
            entry.mark, entry.cost_s = mark, entry.at - now
            return entry.value


class Records:
    """The records of a server's searches."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._views: Kept[RecordView] = Kept()
        self._figures: Kept[dict[str, Any]] = Kept()
        self._reports: Kept[bytes] = Kept(most=8)  # some megabytes each
        self._series: Kept[dict[str, Any]] = Kept()
        self._coefficients: Kept[list[dict[str, Any]]] = Kept()
        self._drawing = threading.Semaphore(1)

    def folder(self, job: Job) -> Path:
        """The run folder of a search that has begun. Raises Problem."""
        if job.kind not in ("search", "grid"):
            raise Problem(
                409,
                f"{job.id}: a job of kind {job.kind} has no record",
                field="id",
                value=job.id,
                mend="see its result, its log or its files",
            )
        if job.kind == "grid":
            raise Problem(
                409,
                f"{job.id}: a grid has no winner and no candidates of its own",
                field="id",
                value=job.id,
                mend="its tables are in its result",
            )
        folder = self._settings.run_dir(job.id)
        if not (folder / "job.yaml").exists():
            raise Problem(
                409,
                f"{job.id}: the search has no record yet; it is {job.state}",
                field="id",
                value=job.id,
                mend="ask again when it runs",
            )
        return folder

    def view(self, job: Job) -> RecordView:
        """What the record holds now. Raises Problem, RunError."""
        folder = self.folder(job)

        def read() -> RecordView:
            from evomerge.api import read_record

            return read_record(folder)

        return self._views.get(job.id, mark_of(folder), read)

    def figures(self, job: Job) -> dict[str, Any]:
        """The figures of the report. Raises Problem."""
        folder = self.folder(job)
        return self._figures.get(
            job.id, mark_of(folder), lambda: json.loads(self._draw("figures", folder))
        )

    def series(self, job: Job) -> dict[str, Any]:
        """The values of the figure of the search and of its population. Raises Problem."""
        folder = self.folder(job)

        def read() -> dict[str, Any]:
            from evomerge.api import search_series

            return search_series(folder)

        return self._series.get(job.id, mark_of(folder), read)

    def coefficients(self, job: Job) -> list[dict[str, Any]]:
        """Coefficients over depth of the merges so far. Raises Problem."""
        folder = self.folder(job)
        return self._coefficients.get(
            job.id, mark_of(folder), lambda: json.loads(self._draw("coefficients", folder))
        )

    def report(self, job: Job) -> bytes:
        """The report as HTML. Raises Problem."""
        folder = self.folder(job)
        return self._reports.get(job.id, mark_of(folder), lambda: self._draw("report", folder))

    def _draw(self, what: str, folder: Path) -> bytes:
        """What a process of its own prints; one at a time, because each takes some 300 MB."""
        with self._drawing:
            command = [sys.executable, "-m", "evomerge.service.http.drawing", what, str(folder)]
            try:
                done = subprocess.run(
                    command,
                    capture_output=True,
                    timeout=_DRAWING_S,
                    check=False,
                    env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
                )
            except subprocess.TimeoutExpired as error:
                raise Problem(503, f"the {what} took more than {_DRAWING_S:g} s") from error
        if done.returncode:
            line = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            status = 409 if done.returncode == 2 else 500
            raise Problem(status, line or f"the {what} cannot be made")
        return done.stdout


def mark_of(folder: Path) -> _Mark:
    """The state of the files that a record is read from."""
    names = ("study.db", "study.db-wal", "job.yaml", "items", "answers")
    marks = []
    for name in names:
        try:
            facts = (folder / name).stat()
        except OSError:
            continue
        marks.append((facts.st_ino, facts.st_size, facts.st_mtime_ns))
    return tuple(marks)
