"""The states of a job and the moves between them; nothing else changes a state.

    queued ── claim ──> starting ── its runner has begun ──> running
      ^ ^ ^                │                                    │
      │ │ └─── lost ───────┴──────── lost, or tried again ──────┤
      │ │                                                       ├──> succeeded
      │ ├──── paused <────────────── pause ─────────────────────┤
      │ ├──── failed <──────────────────────────────────────────┤
      │ └──── cancelled <─────────── cancel ────────────────────┘
      └────── succeeded, resumed with a larger budget

A move writes its `state` event, and what webhooks are told, in the same transaction. Runners and
supervisors name the claim that they hold, so that one whose job was taken away can change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy.orm import Session

from evomerge.errors import hide_secrets, one_line
from evomerge.service.database.engine import Database, now, tell_when_kept
from evomerge.service.database.tables import JobRow
from evomerge.service.queue import retries
from evomerge.service.queue.steps import step_of
from evomerge.service.runner.identity import ProcessIdentity
from evomerge.service.store import events
from evomerge.service.store.events import Fenced, NewEvent
from evomerge.service.store.job import Cause, Job, State, Wanted, job_of
from evomerge.service.webhooks import outbox

MOVES: Mapping[State, frozenset[State]] = {
    "queued": frozenset({"starting", "paused", "cancelled"}),
    "starting": frozenset({"running", "queued", "paused", "cancelled", "failed"}),
    "running": frozenset({"succeeded", "failed", "cancelled", "paused", "queued"}),
    "paused": frozenset({"queued", "cancelled"}),
    "succeeded": frozenset({"queued"}),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
}

ATTEMPTED = ("starting", "running")
"""The states of a job that an attempt has."""

_ENDED = ("succeeded", "failed", "cancelled")
_LONGEST_MESSAGE = 2000


def move(
    session: Session,
    row: JobRow,
    to: State,
    *,
    cause: Cause | None = None,
    message: str | None = None,
) -> None:
    """Move a job whose row is locked; write the event of it, and what webhooks are told."""
    before = job_of(row).state
    assert to in MOVES[before], f"{row.id}: from {before} to {to}"
    at = now(session)
    row.state = to
    row.cause = cause
    row.message = None if message is None else _short(message)
    if to == "starting":
        row.started, row.heartbeat_at = at, at
        row.claim += 1
        row.attempts += 1
    elif to == "running":
        row.heartbeat_at = at
    else:
        row.wanted = {"paused": "pause", "cancelled": "cancel"}.get(to, "run")
        row.ended = at if to in _ENDED else None
        row.queued = at if to == "queued" else row.queued
        row.server = row.runner_host = row.runner_boot = row.runner_started = None
        row.runner_pid = row.heartbeat_at = None
    if to == "succeeded":
        row.setbacks = 0
    tell(session, row, before)


def tell(session: Session, row: JobRow, before: State | None) -> None:
    """Write the event of a job's state, and what webhooks are told; before: None if it is new."""
    event = state_event(row)
    events.add(session, row, [event])
    outbox.announce(session, row, before)
    # A move of a claimed job may be made by its runner; supervisors read it from its events.
    if before not in ATTEMPTED:
        tell_when_kept(session, step_of(job_of(row), dict(event.body)))


def state_event(row: JobRow) -> NewEvent:
    """The event of a job's state as it is now."""
    body = {"state": row.state, "cause": row.cause, "message": row.message}
    return NewEvent(name="state", body={**body, "attempt": row.attempts, "used_s": row.used_s})


def used_before_launch_s(db: Database, job_id: str) -> float:
    """The seconds that a job had used when a person queued it last; its limit counts from there.

    A person's move to the queue has no cause; that of another attempt by itself always has one.
    """
    launches = [
        body
        for _, body in events.bodies(db, job_id, ["state"])
        if body["state"] == "queued" and body["cause"] is None
    ]
    # Events of earlier versions do not say it.
    return float(launches[-1].get("used_s", 0.0)) if launches else 0.0


def ask(session: Session, row: JobRow, wanted: Wanted) -> None:
    """Pause, cancel or run a job that has not ended: at once, or as soon as its runner sees it."""
    if row.state in ("starting", "running"):
        if row.wanted != "cancel":
            row.wanted = wanted
        return
    to: dict[Wanted, State] = {"pause": "paused", "cancel": "cancelled", "run": "queued"}
    if row.state != to[wanted]:
        move(session, row, to[wanted])


# What a runner does with the claim that it was started with.


def begin(db: Database, job_id: str, claim: int, runner: ProcessIdentity) -> Job | None:
    """Take a claimed job as its runner; None if it is not to run any more.

    Only one process can: a second one with the same claim finds the job running.
    """
    with db.write() as session:
        try:
            row = events.owned(session, job_id, claim)
        except Fenced:
            return None
        if row.state != "starting":
            return None
        if row.wanted != "run":
            move(session, row, "paused" if row.wanted == "pause" else "cancelled")
            return None
        row.runner_host, row.runner_boot = runner.host, runner.boot
        row.runner_pid, row.runner_started = runner.pid, runner.started
        move(session, row, "running")
        return job_of(row)


def look(db: Database, job_id: str, claim: int) -> Job:
    """The job of an attempt, with what is wanted of it; nothing is written. Raises Fenced."""
    with db.read() as session:
        row = session.get(JobRow, job_id)
        if row is None or row.claim != claim or row.state != "running":
            raise Fenced(f"{job_id}: attempt {claim} is over")
        return job_of(row)


def renew(db: Database, job_id: str, claim: int, *, used_s: float) -> Job:
    """Say that the runner lives; the job, with what is wanted of it. Raises Fenced."""
    with db.write() as session:
        row = events.owned(session, job_id, claim)
        row.heartbeat_at = now(session)
        row.used_s = used_s
        return job_of(row)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How an attempt ended.

    outcome: `interrupted` if the runner stopped as it was asked to, or before its server's lease
    was over. result: of a job that succeeded; plain values.
    """

    outcome: Literal["succeeded", "failed", "interrupted"]
    cause: Cause | None = None
    message: str | None = None
    result: Mapping[str, Any] | None = None
    used_s: float = 0.0


def finish(db: Database, job_id: str, claim: int, ending: Ending, *, backoff_s: float) -> Job:
    """End an attempt: the job ends, pauses, or waits for another one. Raises Fenced."""
    with db.write() as session:
        row = events.owned(session, job_id, claim)
        row.used_s = max(row.used_s, ending.used_s)
        if ending.outcome == "succeeded":
            row.result = None if ending.result is None else dict(ending.result)
            row.not_before = None
            move(session, row, "succeeded")
        elif row.wanted == "cancel":
            move(session, row, "cancelled")
        elif ending.outcome == "interrupted" and row.wanted == "pause":
            move(session, row, "paused")
        else:
            cause = ending.cause or (
                "interrupted" if ending.outcome == "interrupted" else "unknown"
            )
            _try_again(session, row, cause, ending.message, backoff_s)
        return job_of(row)


def lose(db: Database, job_id: str, claim: int, message: str, *, backoff_s: float) -> Job | None:
    """Take back a job whose runner is surely gone; None if it is no longer that attempt's."""
    with db.write() as session:
        try:
            row = events.owned(session, job_id, claim)
        except Fenced:
            return None
        if row.wanted == "cancel":
            move(session, row, "cancelled")
        elif row.wanted == "pause":
            move(session, row, "paused")
        else:
            _try_again(session, row, "lost", message, backoff_s)
        return job_of(row)


def _try_again(
    session: Session, row: JobRow, cause: Cause, message: str | None, backoff_s: float
) -> None:
    row.setbacks += 1
    another = retries.after(
        cause, setbacks=row.setbacks, retries_left=row.retries_left, backoff_s=backoff_s
    )
    pausing = row.wanted == "pause" and another is not None
    if another is None:
        move(session, row, "failed", cause=cause, message=message)
        return
    if not another.free:
        row.retries_left -= 1
    row.not_before = now(session) + another.wait_s if another.wait_s else None
    move(session, row, "paused" if pausing else "queued", cause=cause, message=message)


def _short(message: str) -> str:
    """One line that both databases can keep."""
    line = one_line(hide_secrets(message)).encode("utf-8", "replace").decode()
    return line if len(line) <= _LONGEST_MESSAGE else line[: _LONGEST_MESSAGE - 1] + "…"
