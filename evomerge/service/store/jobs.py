"""Jobs: submitted, read, listed, edited, deleted and purged."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, delete, func, or_, select
from sqlalchemy.orm import Session

from evomerge.service.database.engine import Database, lock, now
from evomerge.service.database.tables import DeliveryRow, EventRow, JobRow, ProjectRow
from evomerge.service.queue import states
from evomerge.service.store.audit import SERVICE, Who, note
from evomerge.service.store.job import Cause as Cause
from evomerge.service.store.job import Job as Job
from evomerge.service.store.job import JobFilter as JobFilter
from evomerge.service.store.job import Kind as Kind
from evomerge.service.store.job import NewJob as NewJob
from evomerge.service.store.job import State as State
from evomerge.service.store.job import Wanted as Wanted
from evomerge.service.store.job import job_of, new_id
from evomerge.service.store.pages import Page, Scope, newest_first
from evomerge.service.store.refusals import Conflict, NotFound, OverLimit, Refusal
from evomerge.service.store.texts import LATEST_S, LATEST_TEXT, check_name, check_text, time_text

_ID = re.compile(r"j[a-z2-7]{15}")
_LONGEST_S = 10 * 365 * 86400.0
PRIORITIES = 1000
"""Priorities are from minus to plus this."""


def earlier(db: Database, job: NewJob) -> Job | None:
    """The job that the idempotency key of this one made before from the same request, if any."""
    if job.idempotency is None:
        return None
    with db.read() as session:
        row = _of_key(session, job)
        return None if row is None or row.request_sha256 != _digest(job) else job_of(row)


def submit(
    db: Database,
    job: NewJob,
    *,
    who: Who,
    most_queued: int | None = None,
    asked: NewJob | None = None,
) -> tuple[Job, bool]:
    """Queue a job; or the one that its idempotency key made before, and False.

    most_queued: how many jobs of its owner may wait. asked: as the client sent it, where the job
    has been completed since; only this is compared under one key. Raises Conflict if the key came
    with another request, OverLimit, NotFound (project, parent), Refusal.
    """
    digest = _digest(asked or job)
    check_name(job.name, field="name", most=200)
    check_text(job.owner, field="owner", most=200)
    if job.idempotency is not None:
        check_text(job.idempotency, field="Idempotency-Key", most=200)
    _check_numbers(job.priority, job.not_before, job.max_duration_s, job.retries)
    with db.write() as session:
        # Two submissions with one key, or beyond a limit, wait for each other.
        lock(session, "submissions")
        before = _of_key(session, job)
        if before is not None:
            # Earlier versions compared the completed job.
            if before.request_sha256 not in (digest, _digest(job)):
                raise Conflict(
                    "it came with another request before",
                    field="Idempotency-Key",
                    value=job.idempotency,
                    mend="use a new key for a new job",
                )
            return job_of(before), False
        if not _is_id(job.project) or session.get(ProjectRow, job.project) is None:
            raise NotFound(
                "no such project", field="project", value=job.project, mend="check its name"
            )
        if job.parent is not None:
            locked(session, job.parent)
        check_waiting(session, job.owner, most_queued)
        at = now(session)
        row = JobRow(
            id=new_id("j"),
            project=job.project,
            owner=job.owner,
            kind=job.kind,
            name=job.name,
            request=dict(job.request),
            changes={},
            state="queued",
            wanted="run",
            priority=job.priority,
            place=next_place(session),
            not_before=job.not_before,
            max_duration_s=job.max_duration_s,
            retries=job.retries,
            retries_left=job.retries,
            attempts=0,
            setbacks=0,
            claim=0,
            made=at,
            queued=at,
            used_s=0.0,
            idempotency=_kept_key(job),
            request_sha256=digest,
            parent=job.parent,
            last_event=0,
            told=0,
            track={name: dict(options) for name, options in job.track.items()} or None,
        )
        session.add(row)
        session.flush()
        states.tell(session, row, None)
        detail = {"kind": job.kind, "name": job.name, **_told_to(job)}
        note(session, who, "job.submit", row.id, project=row.project, detail=detail)
        session.flush()
        return job_of(row), True


def get(db: Database, job_id: str, *, scope: Scope = None) -> Job:
    """A job, deleted ones too. Raises NotFound, also for a job of another project."""
    with db.read() as session:
        row = session.get(JobRow, job_id) if _is_id(job_id) else None
        if row is None or (scope is not None and row.project not in scope):
            raise unknown(job_id)
        return job_of(row)


def find(
    db: Database,
    jobs: JobFilter,
    *,
    scope: Scope = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Page[Job]:
    """Jobs, newest first. Raises Refusal for a cursor that this did not give."""
    query = select(JobRow).where(*_conditions(jobs, scope))
    return newest_first(db, query, JobRow, job_of, limit=limit, cursor=cursor)


def edit(
    db: Database,
    job_id: str,
    *,
    who: Who,
    scope: Scope = None,
    changes: Mapping[str, Any],
) -> Job:
    """Change name, priority, not_before, max_duration_s or retries (the keys of `changes`).

    Raises NotFound, Conflict (it has ended, and more than its name is changed), Refusal.
    """
    known = ("name", "priority", "not_before", "max_duration_s", "retries")
    for key in changes:
        if key not in known:
            raise Refusal("cannot be changed", field=key, mend=f"change {', '.join(known)}")
    with db.write() as session:
        row = locked(session, job_id, scope=scope)
        if job_of(row).over and set(changes) - {"name"}:
            key = min(set(changes) - {"name"})
            raise Conflict(
                f"the job has {row.state}" if row.state != "cancelled" else "the job is cancelled",
                field=key,
                mend="resume or retry it first",
            )
        if "name" in changes:
            check_name(changes["name"], field="name", most=200)
            row.name = changes["name"]
        row.priority = changes.get("priority", row.priority)
        row.not_before = changes.get("not_before", row.not_before)
        row.max_duration_s = changes.get("max_duration_s", row.max_duration_s)
        if "retries" in changes:
            row.retries = row.retries_left = changes["retries"]
        _check_numbers(row.priority, row.not_before, row.max_duration_s, row.retries)
        shown = dict(changes)
        if isinstance(shown.get("not_before"), float):
            shown["not_before"] = time_text(shown["not_before"])
        note(session, who, "job.edit", row.id, project=row.project, detail=shown)
        session.flush()
        return job_of(row)


def soft_delete(db: Database, job_id: str, *, who: Who, scope: Scope = None) -> Job:
    """Mark a job as deleted; one that is running is cancelled. Raises NotFound."""
    with db.write() as session:
        row = locked(session, job_id, scope=scope)
        if row.deleted is None:
            row.deleted = now(session)
            if not job_of(row).over:
                states.ask(session, row, "cancel")
            note(session, who, "job.delete", row.id, project=row.project)
        session.flush()
        return job_of(row)


def restore(db: Database, job_id: str, *, who: Who, scope: Scope = None) -> Job:
    """Take a deletion back, while the job is not purged. Raises NotFound, Conflict."""
    with db.write() as session:
        row = locked(session, job_id, scope=scope)
        if row.deleted is None:
            raise Conflict(
                "it is not deleted", field="job", value=job_id, mend="there is nothing to restore"
            )
        row.deleted = None
        note(session, who, "job.restore", row.id, project=row.project)
        session.flush()
        return job_of(row)


def to_purge(db: Database, *, older_than_s: float) -> tuple[Job, ...]:
    """Jobs that were deleted so long ago, have ended, and are the parent of no job that is kept."""
    children = select(JobRow.parent).where(JobRow.parent.is_not(None), JobRow.deleted.is_(None))
    with db.read() as session:
        query = select(JobRow).where(
            JobRow.deleted < now(session) - older_than_s,
            JobRow.state.in_(("succeeded", "failed", "cancelled")),
            JobRow.id.not_in(children),
        )
        return tuple(job_of(row) for row in session.scalars(query))


def purge(db: Database, job_id: str, *, who: Who = SERVICE) -> None:
    """Remove a deleted job with its events and deliveries; its files are the caller's to remove."""
    with db.write() as session:
        row = locked(session, job_id)
        if row.deleted is None or not job_of(row).over:
            raise Conflict(
                "it is not deleted, or still runs",
                field="job",
                value=job_id,
                mend="delete it, and wait for its end",
            )
        session.execute(delete(EventRow).where(EventRow.job == job_id))
        session.execute(delete(DeliveryRow).where(DeliveryRow.job == job_id))
        note(session, who, "job.purge", row.id, project=row.project, detail={"name": row.name})
        session.delete(row)


def locked(session: Session, job_id: str, *, scope: Scope = None) -> JobRow:
    """The row of a job, locked until the end of the transaction. Raises NotFound."""
    row = None
    if _is_id(job_id):
        query = select(JobRow).where(JobRow.id == job_id).with_for_update()
        row = session.scalars(query).one_or_none()
    if row is None or (scope is not None and row.project not in scope):
        raise unknown(job_id)
    return row


def unknown(job_id: str) -> NotFound:
    """The refusal for a job that is not there, or that the asker may not see."""
    return NotFound("no such job", field="job", value=job_id, mend="check its id")


def next_place(session: Session) -> float:
    """The place at the end of the queue; the caller holds the lock `submissions`."""
    return float(session.scalar(select(func.max(JobRow.place))) or 0.0) + 1.0


def _is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None or re.fullmatch(r"p[a-z2-7]{15}", text) is not None


def _digest(job: NewJob) -> str:
    asked = {"kind": job.kind, "request": job.request, "project": job.project, "parent": job.parent}
    if job.track:
        asked["track"] = job.track
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _told_to(job: NewJob) -> dict[str, Any]:
    """For the audit log: where what comes of a job is sent."""
    told = {"track": sorted(job.track), "push": job.request.get("push")}
    return {key: value for key, value in told.items() if value}


def _of_key(session: Session, job: NewJob) -> JobRow | None:
    if job.idempotency is None:
        return None
    query = select(JobRow).where(
        JobRow.owner == job.owner,
        JobRow.project == job.project,
        JobRow.idempotency.in_((_kept_key(job), job.idempotency)),
    )
    return session.scalars(query).first()


def _kept_key(job: NewJob) -> str | None:
    """The idempotency key as it is kept: with its project, so that nothing is told of another.

    Earlier versions kept the key alone; a name of a person may come with tokens of many projects.
    """
    return None if job.idempotency is None else f"{job.project} {job.idempotency}"


def check_waiting(session: Session, owner: str, most: int | None) -> None:
    """Check that one more job of an owner may wait. Raises OverLimit."""
    if most is None:
        return
    waiting = select(func.count()).where(
        JobRow.owner == owner, JobRow.state.in_(("queued", "paused")), JobRow.deleted.is_(None)
    )
    count = session.scalar(waiting) or 0
    if count >= most:
        raise OverLimit(
            f"{count} jobs of {owner} wait already, and {most} may",
            field="owner",
            value=owner,
            mend="cancel one, or wait until one has begun",
        )


def _check_numbers(
    priority: int, not_before: float | None, max_duration_s: float | None, retries: int
) -> None:
    """Raise Refusal for a number that cannot be kept, or means nothing."""
    ranges: list[tuple[str, float | None, float, float]] = [
        ("priority", priority, -PRIORITIES, PRIORITIES),
        ("max_duration_s", max_duration_s, 1.0, _LONGEST_S),
        ("retries", retries, 0, 100),
    ]
    for field, value, low, high in ranges:
        if value is not None and not low <= value <= high:
            raise Refusal(
                f"outside {low:.0f} to {high:.0f}", field=field, value=value, mend="give another"
            )
    if not_before is not None and not 0.0 <= not_before <= LATEST_S:
        raise Refusal(
            f"outside {time_text(0.0)} to {LATEST_TEXT}",
            field="not_before",
            value=time_text(not_before),
            mend="give another time, or none to start as soon as there is room",
        )


def _conditions(jobs: JobFilter, scope: Scope) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [
        JobRow.deleted.is_not(None) if jobs.deleted else JobRow.deleted.is_(None)
    ]
    if scope is not None:
        found.append(JobRow.project.in_(sorted(scope)))
    for column, wanted, field in (
        (JobRow.project, jobs.project, "project"),
        (JobRow.owner, jobs.owner, "owner"),
        (JobRow.parent, jobs.parent, "parent"),
    ):
        if wanted is not None:
            check_text(wanted, field=field, most=200)
            found.append(column == wanted)
    if jobs.states:
        found.append(JobRow.state.in_(list(jobs.states)))
    if jobs.kinds:
        found.append(JobRow.kind.in_(list(jobs.kinds)))
    if jobs.q:
        check_text(jobs.q, field="q", most=200)
        inside = (
            JobRow.name.icontains(jobs.q, autoescape=True),
            JobRow.id.contains(jobs.q, autoescape=True),
        )
        found.append(or_(*inside))
    return found
