"""The events of jobs: numbered from 1 without gaps, so that a watcher can go on where it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evomerge.service.database.engine import Database


@dataclass(frozen=True, kw_only=True)
class StoredEvent:
    """An event as it is kept. name: `state`, or as `evomerge.search` names its events."""

    job: str
    seq: int
    at: float
    name: str
    body: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class NewEvent:
    """An event to keep. at: None for now."""

    name: str
    body: Mapping[str, Any]
    at: float | None = None


def read(db: Database, job: str, *, after: int = 0, limit: int = 1000) -> tuple[StoredEvent, ...]:
    """Events with a higher number than `after`, in order. The asker's right is checked by `get`."""
    raise NotImplementedError


def newest(db: Database, jobs: Sequence[str]) -> dict[str, int]:
    """Job -> the number of its last event; for a loop that watches many jobs with one query."""
    raise NotImplementedError


def append(db: Database, job: str, events: Sequence[NewEvent], *, claim: int) -> int:
    """Keep events of the attempt with this claim; the number of the last.

    Raises Fenced if the job is no longer this attempt's.
    """
    raise NotImplementedError
