"""What a user asks of a job: pause, cancel, resume, retry, another place in the queue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from evomerge.service.database.engine import Database, lock
from evomerge.service.database.tables import JobRow
from evomerge.service.queue import states
from evomerge.service.queue.admission import check_changes
from evomerge.service.queue.trackers import Track, check_track
from evomerge.service.settings import ServiceSettings
from evomerge.service.store.audit import Who, note
from evomerge.service.store.job import Job, job_of
from evomerge.service.store.jobs import check_waiting, get, locked, next_place
from evomerge.service.store.pages import Scope
from evomerge.service.store.refusals import Conflict

_LEAST_GAP = 1e-6
"""Places that are closer than this are numbered anew."""


def wish(
    db: Database,
    job_id: str,
    wanted: Literal["pause", "cancel", "run"],
    *,
    settings: ServiceSettings,
    who: Who,
    scope: Scope = None,
    changes: Mapping[str, Any] | None = None,
    track: Track | None = None,
) -> Job:
    """Pause, cancel or resume a job.

    A queued or paused job moves at once; the runner of a running one sees it within a second.
    changes: with "run" only, the dotted keys of a search's job that may change: its budget and
    compute. A succeeded search can be resumed with a larger budget; a failed or cancelled one goes
    on from its record. track: with "run" only, its trackers from now on; None: as before. Raises
    NotFound, Conflict, Refusal, OverLimit.
    """
    together = None
    # Folders are looked at, so not while the database is locked.
    if changes and wanted == "run":
        together = check_changes(get(db, job_id, scope=scope), changes, settings, db)
    if track is not None:
        check_track(get(db, job_id, scope=scope).kind, track, settings)
    with db.write() as session:
        lock(session, "submissions")
        row = locked(session, job_id, scope=scope)
        _refuse_deleted(row)
        before = row.state
        if wanted == "run":
            if job_of(row).over:
                check_waiting(session, row.owner, settings.limits.jobs_queued)
            _resume(session, row, together, track)
        else:
            if job_of(row).over:
                raise Conflict(
                    f"it has ended already ({row.state})",
                    field="job",
                    value=job_id,
                    mend="leave it, or let it go on with resume or retry",
                )
            states.ask(session, row, wanted)
        act = {"pause": "job.pause", "cancel": "job.cancel", "run": "job.resume"}[wanted]
        detail = {**(changes or {}), **(_limit(row, before) if wanted == "run" else {})}
        if track is not None:
            detail["track"] = sorted(track)
        note(session, who, act, row.id, project=row.project, detail=detail)
        session.flush()
        return job_of(row)


def _resume(
    session: Session, row: JobRow, changes: Mapping[str, Any] | None, track: Track | None
) -> None:
    job = job_of(row)
    if row.state in ("starting", "running"):
        if changes is not None:
            raise Conflict(
                "it runs; its budget cannot change meanwhile", field="set", mend="pause it first"
            )
        if track is not None:
            raise Conflict(
                "it runs; its trackers cannot change", field="track", mend="pause it first"
            )
    if track is not None:
        row.track = {name: dict(options) for name, options in track.items()} or None
    if changes is not None:
        row.changes = dict(changes)
    elif row.state == "succeeded":
        raise Conflict(
            "it has succeeded", field="job", value=row.id, mend="give it a larger budget in `set`"
        )
    if row.state == "queued":
        row.not_before = None
        return
    if job.over:
        row.place = next_place(session)
    row.not_before = None
    row.setbacks = 0
    states.ask(session, row, "run")


def retry(
    db: Database,
    job_id: str,
    *,
    who: Who,
    scope: Scope = None,
    most_queued: int | None = None,
) -> Job:
    """Queue a failed or cancelled job again; a search goes on from its record.

    The time that it may run counts anew. most_queued: how many jobs of its owner may wait. Raises
    NotFound, Conflict, OverLimit.
    """
    with db.write() as session:
        lock(session, "submissions")
        row = locked(session, job_id, scope=scope)
        _refuse_deleted(row)
        if row.state not in ("failed", "cancelled"):
            raise Conflict(
                f"it is {row.state}",
                field="job",
                value=job_id,
                mend="only a failed or cancelled job can be retried",
            )
        check_waiting(session, row.owner, most_queued)
        row.place = next_place(session)
        row.not_before = None
        row.setbacks = 0
        row.retries_left = max(row.retries_left, 1)
        before = row.state
        states.move(session, row, "queued")
        detail = _limit(row, before)
        note(session, who, "job.retry", row.id, project=row.project, detail=detail)
        session.flush()
        return job_of(row)


def _limit(row: JobRow, before: str) -> dict[str, float]:
    """For the audit log: the time that a job has again, where it had a limit and was launched."""
    if row.max_duration_s is None or row.state == before or row.state != "queued":
        return {}
    return {"max_duration_s": row.max_duration_s, "used_before_s": round(row.used_s, 3)}


def reorder(
    db: Database,
    job_id: str,
    *,
    before: str | None,
    who: Who,
    scope: Scope = None,
) -> Job:
    """Move a queued job before another of the same priority; None: to the end.

    Raises NotFound, Conflict.
    """
    with db.write() as session:
        lock(session, "submissions")
        row = locked(session, job_id, scope=scope)
        _refuse_unqueued(row)
        if before is None:
            row.place = next_place(session)
        elif before != job_id:
            other = locked(session, before, scope=scope)
            _refuse_unqueued(other)
            if other.priority != row.priority:
                raise Conflict(
                    f"its priority is {other.priority}, not {row.priority}",
                    field="before",
                    value=before,
                    mend="change the priority first",
                )
            row.place = _place_before(session, other)
        note(session, who, "job.reorder", row.id, project=row.project, detail={"before": before})
        session.flush()
        return job_of(row)


def _place_before(session: Session, other: JobRow) -> float:
    """A place between a job and the one before it; all are numbered anew if there is no room."""
    for _ in range(2):
        previous = session.scalar(select(func.max(JobRow.place)).where(JobRow.place < other.place))
        below = other.place - 1.0 if previous is None else previous
        if other.place - below >= _LEAST_GAP:
            return (other.place + below) / 2
        order = select(JobRow).order_by(JobRow.place, JobRow.id).with_for_update()
        for number, row in enumerate(session.scalars(order), start=1):
            row.place = float(number)
        session.flush()
    raise AssertionError("whole numbers have room between them")


def _refuse_unqueued(row: JobRow) -> None:
    if row.state != "queued" or row.deleted is not None:
        raise Conflict(
            f"it is {row.state}, not queued",
            field="job",
            value=row.id,
            mend="only a job that waits has a place; resume it first",
        )


def _refuse_deleted(row: JobRow) -> None:
    if row.deleted is not None:
        raise Conflict("it is deleted", field="job", value=row.id, mend="restore it first")
