"""Reading the records of searches for the routes: once for each change, however many ask.

Reading a record is work of some hundred milliseconds, so it is kept until the record's files
change. What needs the large libraries (figures, the report) is made by a process of its own, so
that they are never loaded into the server.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import anyio.to_thread

from evomerge.errors import RunError
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
_READERS, _DRAWERS = 8, 2
"""Threads for reading records, and for waiting until figures are made. A server has 40; the others
are for requests that take milliseconds."""
_SHARE = 0.25
"""Share of the time for reading records again that have changed; the rest is for other requests."""

_Mark = tuple[tuple[int, int, int], ...]


class Turns:
    """Whose turn it is to read: one reader at a time, and changed records in a share of the time.

    Reading keeps Python busy, so each reader delays every other request.
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
    """A value and the state of the files that it was read from. cost_s: of reading it."""

    lock: threading.Lock
    mark: _Mark = ()
    at: float = 0.0
    cost_s: float = 0.0
    value: T | None = None


class Kept(Generic[T]):
    """Values by job, read again when the files that they come from have changed.

    A search that runs changes its record all the time. Then a value is read again after ten times
    as long as reading it took, and only where that delays nobody: until then the kept one is given.
    A search that does not run is `settled`: its value is always that of its files.
    """

    def __init__(self, *, most: int = _KEPT, turns: Turns | None = None) -> None:
        """turns: shared by values that are read in this process; without it each is for itself."""
        self._entries: OrderedDict[str, _Entry[T]] = OrderedDict()
        self._lock = threading.Lock()
        self._most = most
        self._turns = turns

    def get(self, key: str, mark: _Mark, read: Callable[[], T], *, settled: bool = False) -> T:
        """The value; `read` makes it, in one thread at a time for a key."""
        with self._lock:
            entry = self._entries.pop(key, None) or _Entry(lock=threading.Lock())
            self._entries[key] = entry
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)
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

    def _read(self, entry: _Entry[T], mark: _Mark, read: Callable[[], T]) -> T:
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
        return value


def _is_fresh(entry: _Entry[T], mark: _Mark) -> bool:
    return entry.mark == mark or time.monotonic() - entry.at < 10 * entry.cost_s


class Records:
    """The records of a server's searches."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._views: Kept[RecordView] = Kept(turns=Turns())
        self._figures: Kept[dict[str, Any]] = Kept()
        self._reports: Kept[bytes] = Kept(most=8)  # some megabytes each
        self._coefficients: Kept[list[dict[str, Any]]] = Kept()
        self._drawing = threading.Semaphore(1)
        self._readers = anyio.CapacityLimiter(_READERS)
        self._drawers = anyio.CapacityLimiter(_DRAWERS)

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

    async def read(self, work: Callable[[], T]) -> T:
        """The result of work on a record, in one of the few threads for that."""
        return await anyio.to_thread.run_sync(work, limiter=self._readers)

    async def _wait_for(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._drawers)

    async def view(self, job: Job) -> RecordView:
        """What the record holds now. Raises Problem."""
        return await self.read(lambda: self._view(job))

    async def figures(self, job: Job) -> dict[str, Any]:
        """The figures of the report. Raises Problem."""
        return await self._wait_for(lambda: self._drawn_values(self._figures, "figures", job))

    async def coefficients(self, job: Job) -> list[dict[str, Any]]:
        """Coefficients over depth of the merges so far. Raises Problem."""
        return await self._wait_for(
            lambda: self._drawn_values(self._coefficients, "coefficients", job)
        )

    async def report(self, job: Job) -> bytes:
        """The report as HTML. Raises Problem."""
        return await self._wait_for(lambda: self._report(job))

    def _view(self, job: Job) -> RecordView:
        folder = self.folder(job)

        def read() -> RecordView:
            from evomerge.api import read_record

            with self.opened(job):
                return _without_folder(read_record(folder), folder, job)

        return self._views.get(job.id, mark_of(folder), read, settled=_is_settled(job))

    @contextlib.contextmanager
    def opened(self, job: Job, **fields: str | None) -> Iterator[Path]:
        """The run folder of a search. What is wrong with it is told in the words of the API.

        fields: of the request, by name; an error names the first that was given, and the job in
        place of the server's folder. Raises Problem, EvomergeError.
        """
        folder = self.folder(job)
        try:
            yield folder
        except RunError as error:
            text = str(error).replace(str(folder), job.id)
            text = text.replace("--point", "point").replace("--trial", "trial")
            given = [(name, value) for name, value in fields.items() if value is not None]
            field, value = given[0] if given else (None, None)
            raise Problem(
                422,
                text,
                field=field,
                value=value,
                mend=text.partition("; ")[2] or "see /candidates and /winner of the search",
            ) from error

    def check_choice(self, job: Job, trial: str | None, point: str | None) -> None:
        """Refuse an export of what an ended search has not found. Raises Problem.

        One that has not ended may find it yet.
        """
        if (trial is None) == (point is None) or not job.over:
            return
        from evomerge.api import recipe_text

        with self.opened(job, trial=trial, point=point) as folder:
            recipe_text(folder, trial=trial, point=point)

    def _drawn_values(self, kept: Kept[T], what: str, job: Job) -> T:
        folder = self.folder(job)

        def read() -> T:
            values: T = json.loads(self._draw(what, folder))
            return values

        return kept.get(job.id, mark_of(folder), read, settled=_is_settled(job))

    def _report(self, job: Job) -> bytes:
        folder = self.folder(job)
        return self._reports.get(
            job.id,
            mark_of(folder),
            lambda: self._draw("report", folder),
            settled=_is_settled(job),
        )

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
                raise Problem(
                    503,
                    f"the {what} took more than {_DRAWING_S:g} s",
                    mend="ask again when fewer jobs run on the server's machine",
                ) from error
        if done.returncode:
            line = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            status = 409 if done.returncode == 2 else 500
            raise Problem(
                status,
                line or f"the {what} cannot be made",
                mend=line.partition("; ")[2] or "see the log of the job; tell the operator",
            )
        return done.stdout


def _without_folder(view: RecordView, folder: Path, job: Job) -> RecordView:
    """The view with the job's id where it names the folder, which is nothing to its readers."""
    status = {
        key: value.replace(str(folder), job.id) if key in ("run_dir", "export") and value else value
        for key, value in view.status.items()
    }
    return replace(view, status=status)


def _is_settled(job: Job) -> bool:
    """Whether nothing writes the record of a job."""
    return job.state not in ("starting", "running")


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
