"""The audit log: who did what, when and from where, written in the transaction of the act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from evomerge.service.database.engine import Database
from evomerge.service.store.pages import Page, Scope


@dataclass(frozen=True, kw_only=True)
class Who:
    """Who acts. token_id: None for the service itself and the command line. address: the peer."""

    name: str
    token_id: str | None = None
    address: str | None = None


SERVICE = Who(name="service")
"""The service itself, for example when it purges a deleted job."""


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """An act. act: for example `job.submit`; what: the id it was done to."""

    id: int
    at: float
    who: str
    token_id: str | None
    act: str
    what: str
    project: str | None
    from_address: str | None
    detail: Mapping[str, Any] = field(default_factory=dict)


def note(
    session: Session,
    who: Who,
    act: str,
    what: str,
    *,
    project: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write an act into the audit log, in the transaction of the session."""
    raise NotImplementedError


def find(
    db: Database,
    *,
    scope: Scope = None,
    who: str | None = None,
    act: str | None = None,
    what: str | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[AuditEntry]:
    """Acts, newest first."""
    raise NotImplementedError
