"""A job as it is kept, and as it is submitted."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from evomerge.service.database.tables import JobRow
from evomerge.service.runner.identity import ProcessIdentity

Kind = Literal["search", "grid", "calibration", "evaluation", "export", "check"]
State = Literal["queued", "starting", "running", "paused", "succeeded", "failed", "cancelled"]
Wanted = Literal["run", "pause", "cancel"]
Cause = Literal[
    "input",
    "lost",
    "memory",
    "disk",
    "worker",
    "storage",
    "max_duration",
    "self_check",
    "hub",
    "interrupted",
    "unknown",
]


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to submit; let `queue.admission.admit` check it first.

    request: of a search its JobSpec, of a grid its GridSpec; the other kinds are described in
    `queue/requests.py`. priority: higher runs first. not_before: seconds since the epoch.
    idempotency: the same key of an owner gives the job that it made before in this project. track:
    tracker -> names in it, of a search or a grid.
    """

    kind: Kind
    request: Mapping[str, Any]
    project: str
    owner: str
    name: str = ""
    priority: int = 0
    not_before: float | None = None
    max_duration_s: float | None = None
    retries: int = 3
    idempotency: str | None = None
    parent: str | None = None
    track: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as it is kept. Times are seconds since the epoch.

    changes: of the request by dotted keys, made when it was resumed. retries: as many as were asked
    for. setbacks: attempts in a row ended early with nothing new done. cause, message: of the last
    failure. claim: grows with every attempt, so that an older one can write nothing.
    """

    id: str
    project: str
    owner: str
    kind: Kind
    name: str
    request: Mapping[str, Any]
    changes: Mapping[str, Any]
    state: State
    wanted: Wanted
    priority: int
    place: float
    not_before: float | None
    max_duration_s: float | None
    retries: int
    retries_left: int
    attempts: int
    setbacks: int
    cause: Cause | None
    message: str | None
    claim: int
    server: str | None
    runner: ProcessIdentity | None
    heartbeat_at: float | None
    made: float
    queued: float | None
    started: float | None
    ended: float | None
    deleted: float | None
    used_s: float
    idempotency: str | None
    parent: str | None
    last_event: int
    result: Mapping[str, Any] | None
    track: Mapping[str, Mapping[str, str]]

    @property
    def over(self) -> bool:
        """Whether it has ended and nothing moves it but a retry or a resume."""
        return self.state in ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs are listed. q: part of a name or an id. deleted: list deleted ones instead."""

    project: str | None = None
    states: Sequence[State] = ()
    kinds: Sequence[Kind] = ()
    owner: str | None = None
    parent: str | None = None
    q: str | None = None
    deleted: bool = False


def job_of(row: JobRow) -> Job:
    """The job of a row."""
    runner = None
    if row.runner_pid is not None:
        runner = ProcessIdentity(
            host=row.runner_host or "",
            boot=row.runner_boot or "",
            pid=row.runner_pid,
            started=row.runner_started or "",
        )
    return Job(
        id=row.id,
        project=row.project,
        owner=row.owner,
        kind=cast(Kind, row.kind),
        name=row.name,
        request=row.request,
        changes=row.changes,
        state=cast(State, row.state),
        wanted=cast(Wanted, row.wanted),
        priority=row.priority,
        place=row.place,
        not_before=row.not_before,
        max_duration_s=row.max_duration_s,
        retries=row.retries,
        retries_left=row.retries_left,
        attempts=row.attempts,
        setbacks=row.setbacks,
        cause=cast("Cause | None", row.cause),
        message=row.message,
        claim=row.claim,
        server=row.server,
        runner=runner,
        heartbeat_at=row.heartbeat_at,
        made=row.made,
        queued=row.queued,
        started=row.started,
        ended=row.ended,
        deleted=row.deleted,
        used_s=row.used_s,
        idempotency=row.idempotency and row.idempotency.removeprefix(f"{row.project} "),
        parent=row.parent,
        last_event=row.last_event,
        result=row.result,
        track=row.track or {},
    )


def new_id(letter: str) -> str:
    """A letter and 15 random ones."""
    return letter + base64.b32encode(secrets.token_bytes(10)).decode().lower()[:15]
