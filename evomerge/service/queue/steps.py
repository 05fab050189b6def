"""Steps of a job's life, for the log of a server: each is told once, after it has been kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from evomerge.service.store.job import Cause, Job

What = Literal[
    "queued", "claimed", "begun", "succeeded", "failed", "retried", "lost", "paused", "cancelled",
    "purged",
]  # fmt: skip

_OF_STATE: dict[str, What] = {"starting": "claimed", "running": "begun"}


@dataclass(frozen=True, kw_only=True)
class Step:
    """What happened to a job; nothing in it is secret, and no path is.

    retried: it failed and waits for another attempt. lost: its process is gone; `state` says
    whether it waits for another. seconds: of an attempt that has ended, from its claim on. why: of
    a lost one.
    """

    what: What
    job: str
    project: str
    kind: str
    state: str
    attempt: int
    cause: Cause | None = None
    seconds: float | None = None
    why: str | None = None


def step_of(job: Job, state: dict[str, Any], *, seconds: float | None = None) -> Step:
    """The step that led to a state, as the body of its event says it.

    seconds: of the attempt that ended by it.
    """
    to, cause = state["state"], state["cause"]
    what: What = _OF_STATE.get(to, to)
    if cause == "lost":
        what = "lost"
    elif to == "queued" and cause is not None:
        what = "retried"
    return Step(
        what=what,
        job=job.id,
        project=job.project,
        kind=job.kind,
        state=to,
        attempt=state["attempt"],
        cause=cause,
        seconds=seconds,
        # Messages of other causes may name files.
        why=state["message"] if cause == "lost" else None,
    )
