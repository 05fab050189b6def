"""One attempt of one job, in a process of its own: begun, run, and ended with a cause.

The process is told what to run on its standard input, so that no password is in its arguments, its
environment or a file. It outlives the server that started it.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any, TextIO

from evomerge.errors import (
    InputError,
    Interrupt,
    MergeError,
    RunError,
    SelfCheckError,
    StorageError,
    WorkerError,
    is_shortage,
    one_line,
)
from evomerge.service.database.engine import Database, open_database, shown_to_all
from evomerge.service.queue import states
from evomerge.service.queue.admission import check_request
from evomerge.service.queue.states import Ending
from evomerge.service.runner.identity import own_identity
from evomerge.service.runner.reporter import Reporter
from evomerge.service.settings import ServiceSettings
from evomerge.service.store.events import NewEvent
from evomerge.service.store.job import Cause, Job, Kind


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What a job's work gets. request: complete, with the changes of its job.

    tell: keeps an event; say: shows a line in the log and keeps it as a note.
    """

    database: Database
    settings: ServiceSettings
    job: Job
    request: Mapping[str, Any]
    tell: Callable[[NewEvent], None]

    def say(self, line: str) -> None:
        """Show a line in the log, and keep it as an event."""
        print(one_line(line), flush=True)
        self.tell(NewEvent(name="note", body={"text": line}))


Work = Callable[[Attempt], Mapping[str, Any]]
"""Does the work of a job; returns its result in plain values. Raises what the API raises."""


class Failure(Exception):
    """A job that failed with a cause that its work knows."""

    def __init__(self, cause: Cause, message: str) -> None:
        self.cause: Cause = cause
        super().__init__(message)


def orders(settings: ServiceSettings, database: Database, job: Job) -> str:
    """What a runner reads on its standard input."""
    told = {"settings": settings.to_json(), "url": database.url}
    return json.dumps({**told, "job": job.id, "claim": job.claim}) + "\n"


def run(work: Mapping[Kind, Work], told: TextIO) -> int:
    """Run the attempt that `told` orders; the exit code of the process."""
    line = told.readline()
    if not line.endswith("\n"):
        return 1  # the server was killed while it wrote
    document = json.loads(line)
    settings = ServiceSettings.from_json(document["settings"])
    interrupts = _Interrupts()
    database = open_database(document["url"])
    job = states.begin(database, document["job"], document["claim"], own_identity())
    if job is None:
        return 0
    print(f"attempt {job.attempts} of {job.id} ({job.kind}: {job.name})", flush=True)
    reporter = Reporter(database, settings, job)
    try:
        reporter.start()
        ending = Ending(
            outcome="succeeded", result=_result(work, database, settings, job, reporter)
        )
    except BaseException as error:
        interrupts.ignore()
        ending = reporter.stop or ending_of(error)
        if ending.cause == "unknown":
            traceback.print_exc()
    interrupts.ignore()
    if ending.message:
        print(f"{ending.outcome}: {one_line(ending.message)}", flush=True)
    reporter.close(ending)
    return 0


def _result(
    work: Mapping[Kind, Work],
    database: Database,
    settings: ServiceSettings,
    job: Job,
    reporter: Reporter,
) -> Mapping[str, Any]:
    # Folders may have changed since the job was submitted, and links in them.
    request, _ = check_request(database, job, settings)
    attempt = Attempt(
        database=database, settings=settings, job=job, request=request, tell=reporter.tell
    )
    return work[job.kind](attempt)


def ending_of(error: BaseException) -> Ending:
    """How an attempt ended, by what ended it."""
    message = shown_to_all(error) or type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        return Ending(outcome="interrupted", cause="interrupted", message="its process was stopped")
    return Ending(outcome="failed", cause=cause_of(error), message=message)


def cause_of(error: BaseException) -> Cause:
    """The cause of a failure, which says whether it is worth another attempt."""
    if isinstance(error, Failure):
        return error.cause
    if isinstance(error, RunError) and "another process" in str(error):
        # An older attempt of this job still ends, or its workers do.
        return "lost"
    if _disk_is_full(error):
        return "disk"
    if isinstance(error, SelfCheckError):
        return "self_check"
    if isinstance(error, InputError | MergeError):
        return "input"
    if is_shortage(error):
        return "memory"
    if isinstance(error, StorageError):
        return "storage"
    return "worker" if isinstance(error, WorkerError) else "unknown"


def _disk_is_full(error: BaseException) -> bool:
    current: BaseException | None = error
    for _ in range(20):
        if current is None:
            return False
        if isinstance(current, OSError) and current.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        current = current.__cause__ or current.__context__
    return False


class _Interrupts:
    """The first signal interrupts the work, as Ctrl-C does; the rest are passed over."""

    def __init__(self) -> None:
        self._received = False
        Interrupt.expected = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._received:
            self._received = True
            raise Interrupt

    def ignore(self) -> None:
        """Pass over every further signal; the attempt is being ended."""
        self._received = True


def main(work: Mapping[Kind, Work]) -> None:
    """Run one attempt as a process of its own, and end the process at once."""
    try:
        code = run(work, sys.stdin)
    except (KeyboardInterrupt, StorageError) as error:
        print(shown_to_all(error) or "interrupted", file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of libraries may wait for something for ever.
    os._exit(code)
