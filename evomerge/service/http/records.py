"""Reading the records of searches for the routes: once for each change, however many ask.

Reading a record is work of some hundred milliseconds, so it is kept until the record's files
change, as JSON. A process of its own reads it, and another makes what needs the large libraries
(figures, the report), so that neither their work nor their memory is the server's.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from evomerge.errors import RunError
from evomerge.service.http.kept import Kept, Mark, Turns
from evomerge.service.http.problems import Problem
from evomerge.service.http.reader import Reader
from evomerge.service.http.reading import ROWS
from evomerge.service.settings import ServiceSettings
from evomerge.service.store.jobs import Job

T = TypeVar("T")
Write = Callable[[Any], bytes]
"""Makes the text of an answer from its values, in a thread."""

_DRAWING_S = 120.0
"""Seconds that a process may take for figures or a report."""
_READERS, _DRAWERS = 8, 2
"""Threads for reading records, and for waiting until figures are made. A server has 40; the others
are for requests that take milliseconds."""


_OPTION = re.compile(r"(?<![^\s(])--(trial|point|models|task|item|split)\b")
_CHANGE = re.compile(r"^--(lost|gained|differ)\b")
"""What the command line calls the fields of requests."""


@dataclass(frozen=True, kw_only=True)
class RecordText:
    """What a record held at one moment, as JSON. rows: of candidates, so many in each part.

    As text it takes a third of the memory of its values, and only what is asked for is decoded.
    series: the values of the figure of the search, which are answered as they are.
    """

    _status: bytes
    _outcome: bytes
    series: bytes
    _rows: Sequence[bytes]
    total: int

    @classmethod
    def of(cls, parts: Sequence[bytes]) -> RecordText:
        """The record in the parts of an answer."""
        status, outcome, series, total, *rows = parts
        return cls(
            _status=status,
            _outcome=outcome,
            series=_sendable(series),
            _rows=tuple(map(_sendable, rows)),
            total=int(total),
        )

    @property
    def size(self) -> int:
        """Bytes of it."""
        return sum(map(len, (self._status, self._outcome, self.series, *self._rows)))

    @property
    def status(self) -> dict[str, Any]:
        """As `evomerge status --json`."""
        return _decoded(self._status)

    @property
    def outcome(self) -> dict[str, Any] | None:
        """The outcome of a search that has ended."""
        return None if self._outcome == b"null" else _decoded(self._outcome)

    def candidates(self, offset: int, limit: int) -> bytes:
        """A page of rows of candidates, and how many there are.

        Only parts that the page cuts are decoded, so that pages of whole parts take no time.
        """
        end = min(offset + limit, self.total)
        rows = []
        for place, part in enumerate(self._rows):
            first, last = max(offset - place * ROWS, 0), min(end - place * ROWS, ROWS)
            if last <= first:
                continue
            if first or place * ROWS + last < min((place + 1) * ROWS, self.total):
                part = _encoded(json.loads(part)[first:last])
            rows.append(part.strip()[1:-1])
        return b'{"items":[%b],"total":%d}' % (b",".join(rows), self.total)


def _encoded(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _sendable(text: bytes) -> bytes:
    """JSON that every program reads: its text is UTF-8, and what is no finite number is null."""
    try:
        text.decode()
        if b"NaN" not in text and b"Infinity" not in text:
            return text
    except UnicodeDecodeError:
        pass  # half a pair of surrogates, which a text of a model may hold
    return _encoded(json.loads(text, parse_constant=lambda _name: None))


def _decoded(text: bytes) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(text)
    return values


class Records:
    """The records of a server's searches."""

    def __init__(self, settings: ServiceSettings, reader: Reader | None = None) -> None:
        """reader: one that others use too; it is left open."""
        self._settings = settings
        # What a person asks for now and then must not delay what the page asks for all the time.
        self._reader, self._other_reader = (reader or Reader(), reader or Reader())
        self._own = () if reader else (self._reader, self._other_reader)
        self._views: Kept[RecordText] = Kept(size_of=lambda view: view.size, turns=Turns())
        self._figures: Kept[bytes] = Kept(size_of=len)
        self._reports: Kept[bytes] = Kept(size_of=len)
        self._coefficients: Kept[bytes] = Kept(size_of=len)
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

    def start(self) -> None:
        """Start the process that reads, so that the first who asks need not wait for that."""
        if self._own:
            threading.Thread(target=self._reader.start, name="reader", daemon=True).start()

    def close(self) -> None:
        """End the processes that read."""
        for reader in self._own:
            reader.close()

    async def answer(self, job: Job, write: Callable[[RecordText], bytes]) -> bytes:
        """What `write` makes of what the record holds now. Raises Problem.

        It runs in a thread, too: of a large record an answer takes so long to write that no other
        request may wait for it.
        """
        return await self.read(lambda: write(self._view(job)))

    async def recipe(self, job: Job, trial: str | None, point: str | None) -> str:
        """The recipe of the winner, of a candidate or of a point of the front. Raises Problem."""
        return await self.read(lambda: self._recipe(job, trial, point))

    async def answers(
        self,
        job: Job,
        *,
        models: Sequence[str],
        change: str | None,
        offset: int,
        limit: int,
        write: Write,
        **wanted: str | int | None,
    ) -> bytes:
        """Answers side by side. wanted: task, item, split. Raises Problem."""

        fields = {"models": ", ".join(models) or None, "change": change, **wanted}

        def read() -> bytes:
            with self._opened(job, **fields) as folder:
                (answers,) = self._other_reader.ask(
                    "answers",
                    folder,
                    models=models,
                    wanted={**wanted, **({change: True} if change else {})},
                    offset=offset,
                    limit=limit,
                )
            return write(json.loads(answers))

        return await self.read(read)

    async def figures(self, job: Job, write: Write) -> bytes:
        """The figures of the report. Raises Problem."""
        return await self._wait_for(
            lambda: write(json.loads(self._drawn(self._figures, "figures", job)))
        )

    async def coefficients(self, job: Job, write: Write) -> bytes:
        """Coefficients over depth of the merges so far. Raises Problem."""
        return await self._wait_for(
            lambda: write(json.loads(self._drawn(self._coefficients, "coefficients", job)))
        )

    async def report(self, job: Job) -> bytes:
        """The report as HTML. Raises Problem."""
        return await self._wait_for(lambda: self._drawn(self._reports, "report", job))

    def _view(self, job: Job) -> RecordText:
        folder = self.folder(job)

        def read() -> RecordText:
            with self._opened(job):
                return RecordText.of(self._reader.ask("record", folder, shown_as=job.id))

        return self._views.get(job.id, mark_of(folder), read, settled=_is_settled(job))

    def _recipe(self, job: Job, trial: str | None, point: str | None) -> str:
        with self._opened(job, trial=trial, point=point) as folder:
            (text,) = self._other_reader.ask("recipe", folder, trial=trial, point=point)
        recipe: str = json.loads(text)
        return recipe

    @contextlib.contextmanager
    def _opened(self, job: Job, **fields: object) -> Iterator[Path]:
        """The run folder of a search. What is wrong with it is told in the words of the API.

        fields: of the request, by name. An error names the one that it is about, and the job in
        place of the server's folder. Raises Problem, EvomergeError.
        """
        folder = self.folder(job)
        try:
            yield folder
        except RunError as error:
            text = str(error).replace(str(folder), job.id)
            text = _CHANGE.sub("change", _OPTION.sub(r"\1", text))
            field, value = _field_of(text, fields)
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
        self._recipe(job, trial, point)

    def _drawn(self, kept: Kept[bytes], what: str, job: Job) -> bytes:
        folder = self.folder(job)
        return kept.get(
            job.id, mark_of(folder), lambda: self._draw(what, folder), settled=_is_settled(job)
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


def _field_of(text: str, fields: Mapping[str, object]) -> tuple[str | None, object]:
    """The field that an error is about, with its value: it begins with the name, or quotes it."""
    first = re.match(r"(\w+)[ :]", text)
    if first and first[1] in fields:
        return first[1], fields[first[1]]
    quoted = ((name, value) for name, value in fields.items() if isinstance(value, str))
    return next((each for each in quoted if each[1] in text), (None, None))


def _is_settled(job: Job) -> bool:
    """Whether nothing writes the record of a job."""
    return job.state not in ("starting", "running")


def mark_of(folder: Path) -> Mark:
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
