"""The events of jobs: numbered from 1 without gaps, so that a watcher can go on where it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from evomerge.service.database.engine import Database, now
from evomerge.service.database.tables import EventRow, JobRow


class Fenced(Exception):
    """The job is no longer this attempt's: it was cancelled, or taken as lost and claimed anew."""


@dataclass(frozen=True, kw_only=True)
class StoredEvent:
    """An event as it is kept. name: `state`, or as `evomerge.search` names its events."""

    job: str
    seq: int
    at: float
    name: str
    body: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class NewEvent:
    """An event to keep. at: None for now."""

    name: str
    body: Mapping[str, Any]
    at: float | None = None


def read(
    db: Database, job: str, *, after: int = 0, limit: int = 1000, name: str | None = None
) -> tuple[StoredEvent, ...]:
    """Events with a higher number than `after`, in order. The asker's right is checked by `get`.

    name: only those with this one.
    """
    query = (
        select(EventRow)
        .where(EventRow.job == job, EventRow.seq > after)
        .order_by(EventRow.seq)
        .limit(limit)
    )
    if name is not None:
        query = query.where(EventRow.name == name)
    with db.read() as session:
        rows = session.scalars(query).all()
    return tuple(
        StoredEvent(job=row.job, seq=row.seq, at=row.at, name=row.name, body=row.body)
        for row in rows
    )


def newest(db: Database, jobs: Sequence[str]) -> dict[str, int]:
    """Job -> the number of its last event; for a loop that watches many jobs with one query."""
    query = select(JobRow.id, JobRow.last_event).where(JobRow.id.in_(list(jobs)))
    with db.read() as session:
        return {row.id: row.last_event for row in session.execute(query)}


def append(
    db: Database, job: str, events: Sequence[NewEvent], *, claim: int, after: int | None = None
) -> int:
    """Keep events of the attempt with this claim; the number of the last.

    after: the last number that the attempt knows of. If the job has more events, these are among
    them: they were kept before, and the answer was lost. Raises Fenced if the job is no longer this
    attempt's.
    """
    with db.write() as session:
        row = owned(session, job, claim)
        if after is not None and row.last_event > after:
            return row.last_event
        add(session, row, events)
        if any(event.name == "candidate_done" for event in events):
            row.setbacks = 0
        return row.last_event


def owned(session: Session, job: str, claim: int) -> JobRow:
    """The row of a running job, locked. Raises Fenced if the attempt with the claim is over."""
    query = select(JobRow).where(JobRow.id == job).with_for_update()
    row = session.scalars(query).one_or_none()
    if row is None or row.claim != claim or row.state not in ("starting", "running"):
        raise Fenced(f"{job}: attempt {claim} is over")
    return row


def add(session: Session, row: JobRow, events: Sequence[NewEvent]) -> None:
    """Number and keep events in the transaction of the session, which holds the row's lock."""
    if not events:
        return
    at = now(session)
    rows = [
        {
            "job": row.id,
            "seq": row.last_event + place,
            "at": at if event.at is None else event.at,
            "name": event.name,
            "body": dict(event.body),
        }
        for place, event in enumerate(events, start=1)
    ]
    session.execute(insert(EventRow), rows)
    row.last_event += len(rows)


def bodies(db: Database, job: str, names: Sequence[str]) -> list[tuple[str, Mapping[str, Any]]]:
    """Name and body of a job's events with these names, in order."""
    query = select(EventRow.name, EventRow.body).where(
        EventRow.job == job, EventRow.name.in_(list(names))
    )
    with db.read() as session:
        return [(row.name, row.body) for row in session.execute(query.order_by(EventRow.seq))]
