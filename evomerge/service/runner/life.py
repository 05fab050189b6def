"""The life of a server's jobs as their events tell it: runners write them, in other processes."""

from __future__ import annotations

from collections.abc import Callable

from evomerge.service.database.engine import Database
from evomerge.service.queue.claim import server_of
from evomerge.service.queue.lost import active_jobs
from evomerge.service.queue.states import ATTEMPTED
from evomerge.service.queue.steps import Step, step_of
from evomerge.service.queue.told import take_ends, untold
from evomerge.service.store import events
from evomerge.service.store.job import Job


class Life:
    """Follows jobs from their claim to the end of the attempt, and tells each step once.

    The end of an attempt is told once by all servers of a database together.
    """

    def __init__(self, database: Database, told: Callable[[Step], object]) -> None:
        self._database = database
        self._told = told
        self._followed: dict[tuple[str, int], tuple[Job, int]] = {}

    def find(self) -> None:
        """Tell what ended while no server ran, and follow what runs here for one that is gone."""
        for job_id in untold(self._database):
            self._tell_ends(job_id)
        for job in active_jobs(self._database):
            before = server_of(job.server or "|0||")
            if before.is_here and not before.alive:
                self.follow(job)

    def follow(self, job: Job) -> None:
        """Tell what comes after the events that a claimed job has, until this attempt is over."""
        self._followed.setdefault((job.id, job.claim), (job, job.last_event))

    def look(self) -> None:
        """Tell what is new."""
        if not self._followed:
            return
        newest = events.newest(self._database, [job for job, _ in self._followed])
        for job, seen in list(self._followed.values()):
            last = newest.get(job.id)
            if last is None:
                del self._followed[job.id, job.claim]
            elif last > seen:
                self._read(job, seen, last)

    def _read(self, job: Job, seen: int, last: int) -> None:
        for event in events.read(self._database, job.id, after=seen, name="state"):
            if event.body["state"] not in ATTEMPTED:
                # What follows is a person's move, or another claim, which is followed anew.
                self._tell_ends(job.id, job.claim)
                del self._followed[job.id, job.claim]
                return
            self._told(step_of(job, dict(event.body)))
            last = max(last, event.seq)
        self._followed[job.id, job.claim] = (job, last)

    def _tell_ends(self, job_id: str, attempt: int | None = None) -> None:
        for step in take_ends(self._database, job_id, attempt=attempt):
            self._told(step)
