"""A runner's thread beside its job: keeps events, says that it lives, and stops it when it must.

It stops the job by an interrupt, as Ctrl-C does, so that the record can be resumed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from evomerge.errors import StorageError
from evomerge.service.database.engine import Database, shown_to_all
from evomerge.service.queue import states
from evomerge.service.queue.states import Ending
from evomerge.service.runner.resources import RUNNING_SHARE, shortage
from evomerge.service.settings import ServiceSettings
from evomerge.service.store import events
from evomerge.service.store.events import Fenced, NewEvent
from evomerge.service.store.job import Cause, Job

FLUSH_S = 0.2
LOOK_S = 1.0
_LARGEST_BATCH = 500

CLOSING_S = 60.0
"""How long an interrupted job may take to end; then its process ends without it. Records survive a
kill at any moment."""


class Reporter:
    """Reports on one attempt. `stop`: why the job must stop, once it must."""

    def __init__(
        self,
        database: Database,
        settings: ServiceSettings,
        job: Job,
        *,
        interrupt: Callable[[], None] | None = None,
    ) -> None:
        """interrupt: stops the job's main thread; by default a signal to this process."""
        self.stop: Ending | None = None
        self.fenced = False
        self._database = database
        self._settings = settings
        self._job = job
        self._interrupt = interrupt or _interrupt_main
        self._began = self._renewed = time.monotonic()
        self._looked = 0.0
        self._before_launch_s: float | None = None
        self._last = job.last_event
        self._unreported = False
        self._waiting: list[NewEvent] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="reporter", daemon=True)

    @property
    def used_s(self) -> float:
        """Seconds that the job has run, in this attempt and before."""
        return self._job.used_s + time.monotonic() - self._began

    @property
    def launch_s(self) -> float:
        """Seconds that the job has run since a person submitted, retried or resumed it."""
        if self._before_launch_s is None:
            self._before_launch_s = states.used_before_launch_s(self._database, self._job.id)
        return self.used_s - self._before_launch_s

    def start(self) -> None:
        """Begin to report."""
        self._thread.start()

    def tell(self, event: NewEvent) -> None:
        """Keep an event soon."""
        with self._lock:
            self._waiting.append(event)

    def close(self, ending: Ending) -> None:
        """Keep what waits, and end the attempt; a database that is away is waited for.

        Not for longer than the lease: then a supervisor takes the job as lost.
        """
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        while not self.fenced:
            try:
                while self._flush():
                    pass
                job, claim = self._job, self._job.claim
                ending = Ending(**{**vars(ending), "used_s": self.used_s})
                states.finish(
                    self._database, job.id, claim, ending, backoff_s=self._settings.backoff_s
                )
                return
            except Fenced:
                self.fenced = True
            except StorageError:
                if self._silent_s() > self._settings.lease_s:
                    raise
                time.sleep(LOOK_S)

    def _work(self) -> None:
        stopped: float | None = None
        while not self._ended.wait(FLUSH_S):
            self._report()
            if self.stop is None:
                continue
            if stopped is None:
                stopped = time.monotonic()
                self._interrupt()
            elif time.monotonic() - stopped > CLOSING_S:
                self._end_process()

    def _report(self) -> None:
        """One round; whatever goes wrong in it is tried again, until the lease is over."""
        try:
            while self._flush():
                pass
            if time.monotonic() - self._looked >= LOOK_S:
                self._looked = time.monotonic()
                self._look()
                self._unreported = False
        except Fenced:
            self.fenced = True
            self._ask_to_stop(None, "the job was taken away from this attempt")
        except Exception as error:
            if not self._unreported:  # once, and not at every try
                print(f"not reported: {shown_to_all(error)}", file=sys.stderr, flush=True)
            self._unreported = True
            self._ended.wait(LOOK_S)
            if self._silent_s() > self._settings.lease_s:
                self._ask_to_stop("storage", "the database could not be reached for too long")

    def _flush(self) -> bool:
        """Keep a batch of events; whether there was one."""
        with self._lock:
            batch = self._waiting[:_LARGEST_BATCH]
        if not batch:
            return False
        job = self._job
        self._last = events.append(self._database, job.id, batch, claim=job.claim, after=self._last)
        with self._lock:
            del self._waiting[: len(batch)]
        return True

    def _look(self) -> None:
        """What is wanted of the job, and whether it may go on."""
        job = self._job
        begun = time.monotonic()
        found = states.look(self._database, job.id, job.claim)
        if self._silent_s() > min(10.0, self._settings.lease_s / 4):
            states.renew(self._database, job.id, job.claim, used_s=self.used_s)
            self._renewed = begun
        if found.wanted != "run":
            self._ask_to_stop(None, None)
        elif found.max_duration_s is not None and self.launch_s > found.max_duration_s:
            longest = f"it ran for {found.max_duration_s:g} s, its longest; "
            self._ask_to_stop("max_duration", longest + "a retry gives it as long again")
        elif (short := self._short()) is not None:
            self._ask_to_stop(*short)

    def _short(self) -> tuple[Cause, str] | None:
        settings = self._settings
        found = shortage(
            settings.data,
            least_disk_bytes=settings.least_disk_bytes // RUNNING_SHARE,
            least_memory_bytes=settings.least_memory_bytes // RUNNING_SHARE,
        )
        return None if found is None else (found.cause, str(found))

    def _silent_s(self) -> float:
        return time.monotonic() - self._renewed

    def _ask_to_stop(self, cause: Cause | None, message: str | None) -> None:
        if self.stop is None:
            outcome = "interrupted" if cause is None else "failed"
            self.stop = Ending(outcome=outcome, cause=cause, message=message)  # type: ignore[arg-type]

    def _end_process(self) -> None:
        """End a process whose main thread does not hear the interrupt."""
        print("it does not end; its process is ended", file=sys.stderr, flush=True)
        if not self.fenced and self.stop is not None:
            with contextlib.suppress(Fenced, StorageError):
                while self._flush():
                    pass
                ending = Ending(**{**vars(self.stop), "used_s": self.used_s})
                job = self._job
                states.finish(
                    self._database, job.id, job.claim, ending, backoff_s=self._settings.backoff_s
                )
        os._exit(1)


def _interrupt_main() -> None:
    os.kill(os.getpid(), signal.SIGINT)
