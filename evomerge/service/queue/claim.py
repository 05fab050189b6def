"""Claims: which job runs next, by priority, then a fair share between owners, then its place.

With a limit of GPUs, a job that does not fit yet lets only jobs of its owner without GPUs pass. An
owner with fewer running jobs comes first; among equals the one whose jobs used less time in the
last day, then the one who had fewer attempts in it, then the job that waited longest.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from evomerge.service.database.engine import Database, lock, now
from evomerge.service.database.tables import JobRow
from evomerge.service.queue import states
from evomerge.service.queue.changes import changed
from evomerge.service.queue.gpus import gpus_of
from evomerge.service.runner.identity import ProcessIdentity
from evomerge.service.settings import Limits
from evomerge.service.store.job import Job, job_of

_DAY_S = 86400.0
_LOOKED_THROUGH = 200
"""Waiting jobs of an owner among which one without GPUs is looked for."""
_ROUNDING = 1e-9
"""Of sums of shares of a GPU."""


@dataclass(kw_only=True)
class _Share:
    """What an owner has and had of the machines."""

    running: int = 0
    gpus: float = 0.0
    used_s: float = 0.0
    attempts: int = 0


def claim(
    db: Database, server: ProcessIdentity, limits: Limits, *, slots: int | None = None
) -> Job | None:
    """The next job, which is `starting` from now on; None if none can run now.

    slots: how many jobs may run at once on this machine, those of earlier servers among them.
    """
    # Without a waiting job nobody takes the write lock.
    with db.read() as session:
        if (
            session.scalars(select(JobRow.id).where(*_can_run(now(session))).limit(1)).first()
            is None
        ):
            return None
    with db.write() as session:
        # Shares and limits are counted over all servers, so one claim is made at a time.
        lock(session, "claims")
        if slots is not None and _running_here(session, server) >= slots:
            return None
        for row in _in_order(session, limits):
            row.server = server_text(server)
            states.move(session, row, "starting")
            session.flush()
            return job_of(row)
    return None


def server_text(server: ProcessIdentity) -> str:
    """A server's process as a job names it: the machine's boot first."""
    return "|".join((server.boot, str(server.pid), server.started, server.host))


def server_of(text: str) -> ProcessIdentity:
    """The process that `server_text` wrote."""
    boot, pid, started, host = text.split("|", 3)
    return ProcessIdentity(host=host, boot=boot, pid=int(pid), started=started)


def _running_here(session: Session, server: ProcessIdentity) -> int:
    running = select(func.count()).where(
        JobRow.state.in_(("starting", "running")),
        JobRow.server.startswith(f"{server.boot}|", autoescape=True),
    )
    return session.scalar(running) or 0


def _in_order(session: Session, limits: Limits) -> list[JobRow]:
    at = now(session)
    shares = _shares(session, at)
    first = select(JobRow.priority, JobRow.owner, func.min(JobRow.place).label("place"))
    first = first.where(*_can_run(at)).group_by(JobRow.priority, JobRow.owner)
    waiting = []
    for found in session.execute(first):
        share = shares[found.owner]
        if limits.jobs_running is not None and share.running >= limits.jobs_running:
            continue
        order = (-found.priority, share.running, share.used_s, share.attempts, found.place)
        waiting.append((order, found.owner, found.priority))
    _count_gpus(session, shares, limits)
    blocked: set[str] = set()  # owners with a job that waits for GPUs
    for _, owner, priority in sorted(waiting):
        query = (
            select(JobRow)
            .where(*_can_run(at), JobRow.owner == owner, JobRow.priority == priority)
            .order_by(JobRow.place, JobRow.id)
            .limit(1 if limits.gpus is None else _LOOKED_THROUGH)
            # A job that someone edits or cancels at this moment is passed over this time.
            .with_for_update(skip_locked=True)
        )
        for row in session.scalars(query):
            if limits.gpus is None:
                return [row]
            gpus = _gpus_of(row, limits.gpus)
            if gpus == 0.0 or (
                owner not in blocked and shares[owner].gpus + gpus <= limits.gpus + _ROUNDING
            ):
                return [row]
            blocked.add(owner)
    return []


def _count_gpus(session: Session, shares: defaultdict[str, _Share], limits: Limits) -> None:
    """Add up the GPUs of running jobs, where they are limited."""
    if limits.gpus is None:
        return
    running = select(JobRow).where(JobRow.state.in_(("starting", "running")))
    for row in session.scalars(running):
        shares[row.owner].gpus += _gpus_of(row, limits.gpus)


def _gpus_of(row: JobRow, most: float) -> float:
    """A job of before the limit, which says no number, is taken as one that uses all of it."""
    job = job_of(row)
    gpus = gpus_of(job.kind, changed(job.request, job.changes))
    return most if gpus is None else gpus


def _can_run(at: float) -> tuple[ColumnElement[bool], ...]:
    return (
        JobRow.state == "queued",
        JobRow.deleted.is_(None),
        or_(JobRow.not_before.is_(None), JobRow.not_before <= at),
    )


def _shares(session: Session, at: float) -> defaultdict[str, _Share]:
    shares: defaultdict[str, _Share] = defaultdict(_Share)
    active = JobRow.state.in_(("starting", "running"))
    lately = select(
        JobRow.owner, active, func.count(), func.sum(JobRow.used_s), func.sum(JobRow.attempts)
    )
    lately = lately.where(or_(active, JobRow.started > at - _DAY_S)).group_by(JobRow.owner, active)
    for owner, runs, count, used_s, attempts in session.execute(lately):
        share = shares[owner]
        share.running += count if runs else 0
        share.used_s += float(used_s)
        share.attempts += int(attempts)
    return shares
