"""What a new job may be: its request, its models and tasks, and its size, checked at submission."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge.service.database.engine import Database
from evomerge.service.settings import ServiceSettings
from evomerge.service.store.audit import Who
from evomerge.service.store.jobs import Job, NewJob
from evomerge.service.store.pages import Scope


def admit(db: Database, job: NewJob, settings: ServiceSettings, *, scope: Scope = None) -> NewJob:
    """The job as it is kept: its request complete, its name set. Nothing is written.

    It imports no torch and takes milliseconds; the job's own checks of models and tasks follow when
    it runs (or as a job of kind `check`). Raises Refusal, NotFound (a parent), OverLimit.
    """
    raise NotImplementedError


def admit_and_submit(
    db: Database, job: NewJob, settings: ServiceSettings, *, who: Who, scope: Scope = None
) -> tuple[Job, bool]:
    """`admit`, then `store.jobs.submit`; an idempotency key that is known gives its job."""
    raise NotImplementedError


def clone(
    db: Database,
    job_id: str,
    settings: ServiceSettings,
    *,
    who: Who,
    scope: Scope = None,
    changes: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Job:
    """A new job with the request of another, and changes of it by dotted keys.

    Raises NotFound, Refusal, OverLimit.
    """
    raise NotImplementedError
