"""Ends of attempts that no server has told its log of: each is taken once, whichever server does.

A runner is a process of its own and ends its job also while no server runs.
"""

from __future__ import annotations

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from evomerge.service.database.engine import Database
from evomerge.service.database.tables import EventRow, JobRow
from evomerge.service.queue.states import ATTEMPTED
from evomerge.service.queue.steps import Step, step_of
from evomerge.service.store.job import job_of


def untold(db: Database) -> list[str]:
    """Jobs with an attempt that has ended and was not told."""
    ended = or_(JobRow.state.not_in(ATTEMPTED), JobRow.told < JobRow.claim - 1)
    query = select(JobRow.id).where(JobRow.told < JobRow.claim, ended).order_by(JobRow.ended)
    with db.read() as session:
        return list(session.scalars(query))


def take_ends(db: Database, job_id: str, *, attempt: int | None = None) -> list[Step]:
    """The ends of a job's attempts that were not told, in order; they are taken as told then.

    attempt: the last of them, which has ended; None: all that have. Tell them at once, as no other
    server will.
    """
    with db.write() as session:
        query = select(JobRow).where(JobRow.id == job_id).with_for_update()
        row = session.scalars(query).one_or_none()
        if row is None:
            return []
        last = row.claim - 1 if row.state in ATTEMPTED else row.claim
        last = last if attempt is None else min(attempt, last)
        if last <= row.told:
            return []
        ends = _ends(session, row, last)
        row.told = last
        return ends


def _ends(session: Session, row: JobRow, last: int) -> list[Step]:
    """Of each attempt after the told ones the first state that is not one of an attempt."""
    query = (
        select(EventRow)
        .where(EventRow.job == row.id, EventRow.name == "state")
        .order_by(EventRow.seq)
    )
    job, began, ends = job_of(row), {}, {}
    for event in session.scalars(query):
        attempt = event.body.get("attempt")
        if attempt is None or not row.told < attempt <= last:
            continue
        if event.body["state"] == "starting":
            began[attempt] = event.at
        elif attempt in began and event.body["state"] not in ATTEMPTED and attempt not in ends:
            seconds = event.at - began[attempt]
            ends[attempt] = step_of(job, dict(event.body), seconds=seconds)
    return list(ends.values())
