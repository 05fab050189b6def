"""The states of a job and the moves between them; nothing else changes a state.

queued ── claim ──> starting ── the runner has begun ──> running
   ^  ^                │                                   │
   │  └──── lost ──────┴──────── lost, or retried ─────────┤
   │                                                       ├──> succeeded
   ├──< paused <──────────────── pause ────────────────────┤
   ├──< failed <───────────────────────────────────────────┤
   └──< cancelled <───────────── cancel ───────────────────┘
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from evomerge.service.database.engine import Database
from evomerge.service.store.audit import Who
from evomerge.service.store.jobs import Job
from evomerge.service.store.pages import Scope


def wish(
    db: Database,
    job_id: str,
    wanted: Literal["pause", "cancel", "run"],
    *,
    who: Who,
    scope: Scope = None,
    changes: Mapping[str, Any] | None = None,
) -> Job:
    """Pause, cancel or resume a job.

    A queued or paused job moves at once; the runner of a running one sees it within a second.
    changes: dotted keys of the job, with "run" only: a resumed search may have another budget and
    compute, as `evomerge.resume` allows. A succeeded search can be resumed with a larger budget.
    Raises NotFound, Conflict, Refusal.
    """
    raise NotImplementedError


def retry(db: Database, job_id: str, *, who: Who, scope: Scope = None) -> Job:
    """Queue a failed or cancelled job again; a search goes on from its record.

    Raises NotFound, Conflict.
    """
    raise NotImplementedError


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
    raise NotImplementedError
