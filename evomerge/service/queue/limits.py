"""How full the queue is: for metrics, the page, and a user who asks when a job begins."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, or_, select

from evomerge.service.database.engine import Database, now
from evomerge.service.database.tables import JobRow
from evomerge.service.store.job import Job
from evomerge.service.store.pages import Scope


@dataclass(frozen=True, kw_only=True)
class QueueState:
    """The queue. by_state: state -> jobs. by_owner: owner -> jobs that run.

    oldest_queued_s: how long the oldest job waits that could run now.
    """

    by_state: dict[str, int]
    oldest_queued_s: float | None
    by_owner: dict[str, int]


def queue_state(db: Database, *, scope: Scope = None) -> QueueState:
    """Jobs by state, the oldest that waits, and running jobs of every owner."""
    kept = [JobRow.deleted.is_(None)]
    if scope is not None:
        kept.append(JobRow.project.in_(sorted(scope)))
    active = JobRow.state.in_(("starting", "running"))
    with db.read() as session:
        at = now(session)
        states = select(JobRow.state, func.count()).where(*kept).group_by(JobRow.state)
        owners = select(JobRow.owner, func.count()).where(*kept, active).group_by(JobRow.owner)
        oldest = select(func.min(JobRow.queued)).where(
            *kept,
            JobRow.state == "queued",
            or_(JobRow.not_before.is_(None), JobRow.not_before <= at),
        )
        since = session.scalar(oldest)
        return QueueState(
            by_state={row[0]: row[1] for row in session.execute(states)},
            oldest_queued_s=None if since is None else max(0.0, at - since),
            by_owner={row[0]: row[1] for row in session.execute(owners)},
        )


def ahead(db: Database, job: Job) -> int:
    """How many queued jobs come before this one by priority and place; 0 if it is not queued."""
    if job.state != "queued":
        return 0
    before = select(func.count()).where(
        JobRow.state == "queued",
        JobRow.deleted.is_(None),
        or_(
            JobRow.priority > job.priority,
            (JobRow.priority == job.priority) & (JobRow.place < job.place),
        ),
    )
    with db.read() as session:
        return session.scalar(before) or 0
