"""The audit log: who did what, when and from where, written in the transaction of the act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from evomerge.service.database.engine import Database, now
from evomerge.service.database.tables import AuditRow
from evomerge.service.store.pages import Page, Scope, page_size, read_cursor


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
    session.add(
        AuditRow(
            at=now(session),
            who=who.name,
            token_id=who.token_id,
            act=act,
            what=what,
            project=project,
            from_address=who.address,
            detail=dict(detail or {}),
        )
    )


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
    """Acts, newest first. Raises Refusal for a cursor that this did not give."""
    query = select(AuditRow)
    for column, wanted in ((AuditRow.who, who), (AuditRow.act, act), (AuditRow.what, what)):
        if wanted is not None:
            query = query.where(column == wanted)
    if scope is not None:
        query = query.where(AuditRow.project.in_(sorted(scope)))
    size = page_size(limit)
    with db.read() as session:
        total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
        if cursor is not None:
            (last,) = read_cursor(cursor, int)
            query = query.where(AuditRow.id < last)
        rows = session.scalars(query.order_by(AuditRow.id.desc()).limit(size + 1)).all()
    entries = tuple(_entry(row) for row in rows[:size])
    return Page(
        items=entries, cursor=str(entries[-1].id) if len(rows) > size else None, total=total
    )


def _entry(row: AuditRow) -> AuditEntry:
    return AuditEntry(
        id=row.id,
        at=row.at,
        who=row.who,
        token_id=row.token_id,
        act=row.act,
        what=row.what,
        project=row.project,
        from_address=row.from_address,
        detail=row.detail or {},
    )
