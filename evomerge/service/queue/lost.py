"""Which jobs were lost: no process works at them any more, or none that can be trusted to."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from evomerge.service.database.engine import Database, now
from evomerge.service.database.tables import JobRow
from evomerge.service.queue.claim import server_of
from evomerge.service.store.job import Job, job_of

START_S = 600.0
"""How long a runner may take from its claim to its first word; imports on a slow disk are slow."""

_DEAF_LEASES = 10
"""Leases without a heartbeat after which a process of this machine is taken to hang."""


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A job that was lost, and why. hangs: its process is still there, and must be ended."""

    job: Job
    why: str
    hangs: bool = False


def lost_jobs(db: Database, *, lease_s: float) -> list[Lost]:
    """Jobs that are starting or running, and whose process is surely gone.

    A process of this boot of this machine can be seen. Of another machine, or of an earlier boot,
    nothing can be seen; its runner stops itself when it could not say for a lease that it lives, so
    twice that is waited for.
    """
    jobs = active_jobs(db)
    with db.read() as session:
        at = now(session)
    found = (_lost(job, at - (job.heartbeat_at or 0.0), lease_s) for job in jobs)
    return [each for each in found if each is not None]


def active_jobs(db: Database) -> list[Job]:
    """Jobs that are starting or running, on any machine."""
    with db.read() as session:
        rows = session.scalars(select(JobRow).where(JobRow.state.in_(("starting", "running"))))
        return [job_of(row) for row in rows]


def _lost(job: Job, silent_s: float, lease_s: float) -> Lost | None:
    if job.state == "starting":
        server = server_of(job.server or "|0||")
        if server.is_here and not server.alive:
            return Lost(job=job, why="its server ended before the job began")
        if silent_s > (START_S if server.is_here else START_S + 2 * lease_s):
            return Lost(job=job, why="its process did not begin", hangs=True)
        return None
    runner = job.runner
    assert runner is not None, job.id
    if runner.is_here:
        if not runner.alive:
            return Lost(job=job, why=f"its process {runner.pid} was killed, or it crashed")
        if silent_s > _DEAF_LEASES * lease_s:
            return Lost(job=job, why=f"its process {runner.pid} did not answer", hangs=True)
        return None
    if silent_s > 2 * lease_s:
        return Lost(job=job, why=f"nothing was heard from {runner.host} for {silent_s:.0f} s")
    return None
