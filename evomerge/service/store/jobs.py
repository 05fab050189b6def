"""Jobs: submitted, read, listed, edited, deleted and purged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from evomerge.service.database.engine import Database
from evomerge.service.runner.identity import ProcessIdentity
from evomerge.service.store.audit import Who
from evomerge.service.store.pages import Page, Scope

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
    "interrupted",
    "unknown",
]


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to submit; let `queue.admission.admit` check it first.

    request: of a search its JobSpec, of a grid its GridSpec; the other kinds are described in
    `queue/requests.py`. priority: higher runs first. not_before: seconds since the epoch.
    idempotency: the same key of the same owner gives the job that it made before.
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


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as it is kept. Times are seconds since the epoch.

    changes: of the request by dotted keys, made when it was resumed. losses: how often in a row its
    process was lost before it had done anything. cause, message: of the last failure. claim: grows with every attempt, so that an older one can
    write nothing.
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
    retries_left: int
    attempts: int
    losses: int
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


def submit(db: Database, job: NewJob, *, who: Who) -> tuple[Job, bool]:
    """Queue a job; or the one that its idempotency key made before, and False.

    Raises Conflict if the key came with another request, OverLimit, NotFound (project, parent).
    """
    raise NotImplementedError


def get(db: Database, job_id: str, *, scope: Scope = None) -> Job:
    """A job, deleted ones too. Raises NotFound, also for a job of another project."""
    raise NotImplementedError


def find(
    db: Database,
    jobs: JobFilter,
    *,
    scope: Scope = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Page[Job]:
    """Jobs, newest first. Raises Refusal for a cursor that this did not give."""
    raise NotImplementedError


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
    raise NotImplementedError


def soft_delete(db: Database, job_id: str, *, who: Who, scope: Scope = None) -> Job:
    """Mark a job as deleted; one that is running is cancelled. Raises NotFound."""
    raise NotImplementedError


def restore(db: Database, job_id: str, *, who: Who, scope: Scope = None) -> Job:
    """Take a deletion back, while the job is not purged. Raises NotFound, Conflict."""
    raise NotImplementedError
