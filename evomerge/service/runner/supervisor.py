"""The supervisor of a server: starts runners, finds them again, takes back jobs that were lost."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

from evomerge.errors import StorageError, one_line
from evomerge.service.database.engine import Database
from evomerge.service.outage import Outage
from evomerge.service.queue import states
from evomerge.service.queue.claim import claim
from evomerge.service.queue.lost import Lost, lost_jobs
from evomerge.service.queue.steps import Step
from evomerge.service.runner.attempt import orders
from evomerge.service.runner.identity import marked, own_identity
from evomerge.service.runner.life import Life
from evomerge.service.runner.resources import Shortage, shortage
from evomerge.service.settings import ServiceSettings
from evomerge.service.store import jobs, people, uploads
from evomerge.service.store.job import Job
from evomerge.service.store.upload_files import STALE_S

_log = logging.getLogger(__name__)

RUNNER = (sys.executable, "-P", "-m", "evomerge.service.runner")
"""`-P`: no module is taken from the folder that it works in."""

MARK = "EVOMERGE_ATTEMPT"
"""In the environment of a runner and of all processes that it starts: JOB:CLAIM."""

_DATABASE_VARIABLE = "EVOMERGE_DATABASE"
"""Names the database for the command line, perhaps with a password."""

_LOST_EVERY_S = 1.0
_PURGE_EVERY_S = 600.0


class Supervisor:
    """A thread of a server; `start` it once, `stop` it at the end: runners go on without it."""

    def __init__(
        self,
        database: Database,
        settings: ServiceSettings,
        *,
        runner: Sequence[str] = RUNNER,
        told: Callable[[Step], object] = lambda _: None,
    ) -> None:
        """runner: the command that runs one attempt. told: called with each step of its jobs.

        Steps that the database's listeners are told are not among them.
        """
        self.held: Shortage | None = None
        self._database = database
        self._settings = settings
        self._runner = tuple(runner)
        self._server = own_identity()
        self._told = told
        self._life = Life(database, told)
        self._children: dict[tuple[str, int], subprocess.Popen[str]] = {}
        self._next = {"lost": 0.0, "purge": 0.0}
        self._turned = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="supervisor", daemon=True)

    def start(self) -> None:
        """Find the runners of this host again, then watch the queue."""
        settings = self._settings
        for folder in ("runs", "exports", "logs", "uploads", "tasks", "empty"):
            (settings.data / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._thread.start()

    def stop(self) -> None:
        """Start nothing more and end the thread; running jobs go on."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether it looked at the queue lately; for readiness."""
        return self._thread.is_alive() and time.monotonic() - self._turned < 60.0

    def _work(self) -> None:
        outage = Outage(_log, "the queue cannot be looked at")
        found = False
        while not self._ended.is_set():
            try:
                if not found:
                    self._life.find()
                    found = True
                self.turn()
            except Exception as error:
                outage.failed(error)
            else:
                self._turned = time.monotonic()
                outage.worked()
            self._ended.wait(self._settings.poll_s)
        with contextlib.suppress(StorageError):
            self._life.look()  # what ended since the last turn

    def turn(self) -> None:
        """One look at everything."""
        self._reap()
        if self._due("lost", _LOST_EVERY_S):
            for lost in lost_jobs(self._database, lease_s=self._settings.lease_s):
                self._take_back(lost)
        while not self._ended.is_set() and self._start_next():
            pass
        if self._due("purge", _PURGE_EVERY_S):
            self._purge()
        self._life.look()  # last: what is only told must hold up nothing

    def _due(self, what: str, every_s: float) -> bool:
        if time.monotonic() < self._next[what]:
            return False
        self._next[what] = time.monotonic() + every_s
        return True

    def _reap(self) -> None:
        """Notice children that ended. One that ended well has ended its job itself."""
        for (job_id, number), child in list(self._children.items()):
            code = child.poll()
            if code is None:
                continue
            del self._children[job_id, number]
            if code != 0:
                why = f"its process ended with exit code {code}"
                if code < 0:
                    why = f"its process was ended by {signal.Signals(-code).name}"
                if code == -signal.SIGKILL:
                    why += "; the system sends it where memory runs out"
                self._lose(job_id, number, why)
            else:
                self._lose(job_id, number, "its process ended and did not say how")

    def _take_back(self, lost: Lost) -> None:
        job = lost.job
        if (job.id, job.claim) in self._children and not lost.hangs:
            return  # it is reaped, which says more
        if lost.hangs and job.runner is not None:
            job.runner.send(signal.SIGKILL)
        self._life.follow(job)
        self._lose(job.id, job.claim, lost.why)

    def _lose(self, job_id: str, number: int, why: str) -> None:
        self._end_leftovers(job_id, number)
        backoff_s = self._settings.backoff_s
        states.lose(self._database, job_id, number, why, backoff_s=backoff_s)

    def _end_leftovers(self, job_id: str, number: int) -> None:
        """End what a runner has started and left behind, so that it disturbs no other attempt."""
        for process in marked(f"{MARK}={job_id}:{number}"):
            process.send(signal.SIGKILL)

    def _start_next(self) -> bool:
        """Claim a job and start its runner; whether there was one."""
        settings = self._settings
        if settings.slots < 1:
            return False
        self.held = shortage(
            settings.data,
            least_disk_bytes=settings.least_disk_bytes,
            least_memory_bytes=settings.least_memory_bytes,
        )
        if self.held is not None:
            return False
        job = claim(self._database, self._server, settings.limits, slots=settings.slots)
        if job is None:
            return False
        self._life.follow(job)
        try:
            self._children[job.id, job.claim] = self._spawn(job)
        except OSError as error:
            self._lose(job.id, job.claim, f"its process could not be started: {one_line(error)}")
            return False
        return True

    def _spawn(self, job: Job) -> subprocess.Popen[str]:
        """Start the runner of a claimed job, in a session of its own."""
        settings = self._settings
        log = os.open(
            settings.log_file(job.id), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600
        )
        try:
            child = subprocess.Popen(
                self._runner,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Nothing lies in it that a name in a job could mean.
                cwd=settings.data / "empty",
                env=self._environment(job),
                start_new_session=True,
                text=True,
            )
        finally:
            os.close(log)
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended at once, which is noticed later
            child.stdin.write(orders(settings, self._database, job))
            child.stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        return child

    def _environment(self, job: Job) -> dict[str, str]:
        """The server's, without the URL of its database, which a runner is told otherwise."""
        kept = {name: value for name, value in os.environ.items() if name != _DATABASE_VARIABLE}
        return {**kept, "PYTHONUNBUFFERED": "1", MARK: f"{job.id}:{job.claim}"}

    def _purge(self) -> None:
        """Remove the files and rows of jobs that were deleted long ago."""
        settings = self._settings
        for job in jobs.to_purge(self._database, older_than_s=settings.purge_after_s):
            for folder in (settings.run_dir(job.id), settings.export_dir(job.id)):
                shutil.rmtree(folder, ignore_errors=True)
            settings.log_file(job.id).unlink(missing_ok=True)
            jobs.purge(self._database, job.id)
            self._told(
                Step(
                    what="purged",
                    job=job.id,
                    project=job.project,
                    kind=job.kind,
                    state=job.state,
                    attempt=job.attempts,
                )
            )
        for project in people.projects(self._database):
            uploads.sweep(self._database, project.id, data=settings.data)
        for left in (*settings.data.glob(".making-*"), *settings.data.glob(".going-*")):
            with contextlib.suppress(OSError):  # of a server that was killed meanwhile
                if left.lstat().st_mtime < time.time() - STALE_S:
                    shutil.rmtree(left, ignore_errors=True)
