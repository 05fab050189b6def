"""The outbox: what is to be told of a job, written in the transaction that changes the job.

So a kill at any moment loses nothing and tells of nothing that did not happen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from evomerge.service.database.engine import now
from evomerge.service.database.tables import DeliveryRow, JobRow, ProjectRow, WebhookRow
from evomerge.service.store.job import new_id
from evomerge.service.webhooks.kinds import facts_of, kind_of

MOST_WAITING = 1000
"""Deliveries of one webhook that may wait; further ones are kept as failed."""


def announce(session: Session, row: JobRow, before: str | None) -> None:
    """Write a delivery for every webhook that wants to know of this move of a job.

    before: the state that the job had; None for a new job.
    """
    kind = kind_of(row, before)
    if kind is None:
        return
    hooks = select(WebhookRow.id, WebhookRow.kinds).where(
        WebhookRow.project == row.project, WebhookRow.disabled.is_(None)
    )
    wanting = [hook for hook, kinds in session.execute(hooks) if kinds is None or kind in kinds]
    if not wanting:
        return
    project = session.get_one(ProjectRow, row.project).name
    facts = facts_of(row, project)
    waiting = waiting_of(session, wanting)
    for hook in wanting:
        add(session, hook, kind, facts, job=row.id, full=waiting.get(hook, 0) >= MOST_WAITING)


def add(
    session: Session,
    webhook: str,
    kind: str,
    data: Mapping[str, Any],
    *,
    job: str | None = None,
    full: bool = False,
) -> DeliveryRow:
    """Write a delivery. full: too many wait already, so it is kept as one that failed."""
    at = now(session)
    row = DeliveryRow(
        id=new_id("msg_"),
        webhook=webhook,
        job=job,
        kind=kind,
        data=dict(data),
        made=at,
        state="failed" if full else "waiting",
        attempts=0,
        next_at=None if full else at,
        last_error=f"not sent: {MOST_WAITING} deliveries wait already" if full else None,
        ended=at if full else None,
    )
    session.add(row)
    return row


def waiting_of(session: Session, webhooks: list[str]) -> dict[str, int]:
    """Webhook -> how many of its deliveries wait."""
    query = select(DeliveryRow.webhook, func.count()).where(
        DeliveryRow.state == "waiting", DeliveryRow.webhook.in_(webhooks)
    )
    return {row[0]: row[1] for row in session.execute(query.group_by(DeliveryRow.webhook))}
