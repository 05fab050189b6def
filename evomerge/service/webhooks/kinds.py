"""What webhooks tell of: a kind for every change of a job that someone may wait for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from evomerge.service.database.tables import JobRow
from evomerge.service.queue.retries import FREE

EventKind = Literal[
    "job.queued",
    "job.started",
    "job.resumed",
    "job.paused",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "job.lost",
    "job.retrying",
    "export.succeeded",
]

EVENT_KINDS: tuple[EventKind, ...] = get_args(EventKind)

TEST = "webhook.test"
"""The kind of a delivery that a user asks for; every webhook gets it."""

_LONGEST = 1000
_SHOWN: Mapping[str, tuple[str, ...]] = {
    "search": (
        *("headline", "verdict", "better", "gain", "score", "winner", "points"),
        *("generations", "reason"),
    ),
    "export": ("label", "verified", "url"),
}
"""What is told of the result of a job; the rest is as long as the job makes it."""


def kind_of(row: JobRow, before: str | None) -> EventKind | None:
    """What a job's move to its present state is; None for one that nobody waits for.

    before: the state that it had; None for a new job.
    """
    at_work = before in ("starting", "running")
    match row.state:
        case "queued" if at_work:
            return "job.lost" if row.cause in FREE else "job.retrying"
        case "queued":
            return "job.queued"
        case "running":
            return "job.started" if row.attempts == 1 else "job.resumed"
        case "paused":
            return "job.paused"
        case "succeeded":
            return "export.succeeded" if row.kind == "export" else "job.succeeded"
        case "failed":
            return "job.failed"
        case "cancelled":
            return "job.cancelled"
    return None


def facts_of(row: JobRow, project: str) -> dict[str, Any]:
    """What is told of a job as it is now; short, whatever its result holds."""
    return {
        "id": row.id,
        "name": row.name,
        "project": project,
        "owner": row.owner,
        "kind": row.kind,
        "parent": row.parent,
        "state": row.state,
        "attempt": row.attempts,
        "number": row.last_event,
        "cause": row.cause,
        "message": row.message,
        "result": _result(row) if row.state == "succeeded" else None,
    }


def _result(row: JobRow) -> dict[str, Any]:
    found = row.result or {}
    return {key: _short(found[key]) for key in _SHOWN.get(row.kind, ()) if key in found}


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _short(each) for key, each in value.items()}
    return value[:_LONGEST] if isinstance(value, str) else value
