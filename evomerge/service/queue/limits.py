"""Limits of a person: how many jobs may wait and run at once."""

from __future__ import annotations

from dataclasses import dataclass

from evomerge.service.database.engine import Database
from evomerge.service.store.pages import Scope


@dataclass(frozen=True, kw_only=True)
class QueueState:
    """How full the queue is, for metrics and the page. by_state: state -> jobs."""

    by_state: dict[str, int]
    oldest_queued_s: float | None
    by_owner: dict[str, int]


def queue_state(db: Database, *, scope: Scope = None) -> QueueState:
    """Jobs by state; the oldest that could run now; running jobs of every owner."""
    raise NotImplementedError
