"""Webhooks of projects: made, listed, changed, disabled, deleted; and their secrets, shown once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.orm import Session

from evomerge.service.database.engine import Database, lock, now
from evomerge.service.database.tables import DeliveryRow, ProjectRow, WebhookRow
from evomerge.service.store.audit import Who, note
from evomerge.service.store.job import new_id
from evomerge.service.store.pages import Scope
from evomerge.service.store.refusals import Conflict, NotFound, OverLimit, Refusal
from evomerge.service.store.texts import check_name, check_text
from evomerge.service.webhooks import outbox
from evomerge.service.webhooks.destinations import Destinations, Target
from evomerge.service.webhooks.kinds import EVENT_KINDS, TEST
from evomerge.service.webhooks.signature import new_secret

MOST_WEBHOOKS = 20
"""Webhooks of a project."""

LONGEST_OVERLAP_S = 7 * 86400.0
"""How long a secret that was replaced may go on signing."""

Condition = Literal["active", "failing", "disabled"]


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """A webhook without its secrets. kinds: what it is told; None: everything.

    waiting: its deliveries that have not arrived yet. last_at, last_status, last_error: of the last
    try. old_until: when the secret that was replaced stops signing.
    """

    id: str
    project: str
    owner: str
    name: str
    url: str
    kinds: tuple[str, ...] | None
    made: float
    disabled: float | None
    disabled_why: str | None
    failing_since: float | None
    last_at: float | None
    last_status: int | None
    last_error: str | None
    old_until: float | None
    waiting: int

    @property
    def condition(self) -> Condition:
        """Whether it is told of jobs, and whether what it is told arrives."""
        if self.disabled is not None:
            return "disabled"
        return "active" if self.failing_since is None else "failing"


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What changes of a webhook; None: it stays. kinds: empty for everything."""

    name: str | None = None
    url: str | None = None
    kinds: Sequence[str] | None = None
    enabled: bool | None = None


def make(
    db: Database,
    *,
    project: str,
    url: object,
    destinations: Destinations,
    name: str = "",
    kinds: Sequence[str] | None = None,
    who: Who,
) -> tuple[Webhook, str]:
    """A new webhook and its secret: show it once.

    Raises Refusal, NotFound (project), OverLimit.
    """
    check_name(name, field="name", most=200)
    target = destinations.read_url(url)
    wanted = _checked(kinds)
    secret = new_secret()
    with db.write() as session:
        lock(session, "webhooks")
        if session.get(ProjectRow, project) is None:
            raise NotFound("no such project", field="project", value=project, mend="check its name")
        count = session.scalar(select(func.count()).where(WebhookRow.project == project)) or 0
        if count >= MOST_WEBHOOKS:
            raise OverLimit(
                f"{count} webhooks, the most of a project",
                field="project",
                mend="delete one that is not needed",
            )
        row = WebhookRow(
            id=new_id("w"),
            project=project,
            owner=who.name,
            name=name,
            url=str(url),
            kinds=wanted,
            secret=secret,
            made=now(session),
        )
        session.add(row)
        note(session, who, "webhook.make", row.id, project=project, detail=_shown(row, target))
        session.flush()
        return _webhook(session, row), secret


def find_webhooks(
    db: Database, *, project: str | None = None, owner: str | None = None, scope: Scope = None
) -> tuple[Webhook, ...]:
    """Webhooks of the asker's projects, the oldest first; owner: the person who made them."""
    with db.read() as session:
        rows = session.scalars(_query(project, owner, scope)).all()
        waiting = outbox.waiting_of(session, [row.id for row in rows])
        return tuple(_webhook(session, row, waiting.get(row.id, 0)) for row in rows)


def get(db: Database, webhook_id: str, *, scope: Scope = None) -> Webhook:
    """A webhook. Raises NotFound, also for one of another project."""
    check_text(webhook_id, field="webhook", most=100)
    with db.read() as session:
        row = session.get(WebhookRow, webhook_id)
        if row is None or (scope is not None and row.project not in scope):
            raise _unknown(webhook_id)
        return _webhook(session, row)


def edit(
    db: Database,
    webhook_id: str,
    changes: Changes,
    *,
    destinations: Destinations,
    who: Who,
    scope: Scope = None,
) -> Webhook:
    """Change a webhook. One that is disabled ends its waiting deliveries as failed.

    Raises NotFound, Refusal.
    """
    if changes.name is not None:
        check_name(changes.name, field="name", most=200)
    with db.write() as session:
        row = _locked(session, webhook_id, scope)
        if changes.name is not None:
            row.name = changes.name
        if changes.url is not None and changes.url != row.url:
            destinations.read_url(changes.url)
            row.url = changes.url
            row.failing_since = row.last_at = row.last_status = row.last_error = None
        if changes.kinds is not None:
            row.kinds = _checked(changes.kinds)
        if changes.enabled is False and row.disabled is None:
            disable(session, row, f"by {who.name}")
        elif changes.enabled:
            # What was wrong may be mended; the next try says.
            row.disabled = row.disabled_why = row.failing_since = None
        target = destinations.read_url(row.url) if changes.url is not None else None
        detail = {**_shown(row, target), "enabled": row.disabled is None}
        note(session, who, "webhook.edit", row.id, project=row.project, detail=detail)
        session.flush()
        return _webhook(session, row)


def disable(session: Session, row: WebhookRow, why: str) -> None:
    """Tell a webhook nothing more; the caller holds its row."""
    at = now(session)
    row.disabled, row.disabled_why = at, why
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.webhook == row.id, DeliveryRow.state == "waiting")
        .values(state="failed", next_at=None, ended=at, last_error="the webhook was disabled")
    )


def remove(db: Database, webhook_id: str, *, who: Who, scope: Scope = None) -> None:
    """Delete a webhook with its secrets and deliveries. Raises NotFound."""
    with db.write() as session:
        _delete(session, _locked(session, webhook_id, scope), who)


def remove_webhooks(
    db: Database, *, owner: str, who: Who, scope: Scope = None
) -> tuple[Webhook, ...]:
    """Delete a person's webhooks, with their secrets and deliveries; those that were deleted."""
    with db.write() as session:
        rows = session.scalars(_query(None, owner, scope).with_for_update()).all()
        removed = tuple(_webhook(session, row) for row in rows)
        for row in rows:
            _delete(session, row, who)
        return removed


def rotate(
    db: Database, webhook_id: str, *, overlap_s: float, who: Who, scope: Scope = None
) -> tuple[Webhook, str]:
    """A new secret: show it once. The one before signs beside it for `overlap_s` seconds.

    Raises NotFound, Refusal.
    """
    if not 0.0 <= overlap_s <= LONGEST_OVERLAP_S:
        raise Refusal(
            f"outside 0 to {LONGEST_OVERLAP_S:g}",
            field="overlap_s",
            value=overlap_s,
            mend="give another",
        )
    secret = new_secret()
    with db.write() as session:
        row = _locked(session, webhook_id, scope)
        row.old_secret = row.secret if overlap_s else None
        row.old_until = now(session) + overlap_s if overlap_s else None
        row.secret = secret
        detail = {"overlap_s": overlap_s}
        note(session, who, "webhook.rotate", row.id, project=row.project, detail=detail)
        session.flush()
        return _webhook(session, row), secret


def send_test(db: Database, webhook_id: str, *, who: Who, scope: Scope = None) -> str:
    """Let a test be sent; the id of its delivery. Raises NotFound, Conflict, OverLimit."""
    with db.write() as session:
        row = _locked(session, webhook_id, scope)
        if row.disabled is not None:
            raise Conflict(
                "it is disabled", field="webhook", value=webhook_id, mend="enable it first"
            )
        waiting = outbox.waiting_of(session, [row.id]).get(row.id, 0)
        if waiting >= outbox.MOST_WAITING:
            raise OverLimit(
                f"{waiting} of its deliveries wait already",
                field="webhook",
                value=webhook_id,
                mend="see why its receiver does not take them",
            )
        project = session.get_one(ProjectRow, row.project).name
        told = {"webhook": row.id, "project": project, "asked_by": who.name}
        delivery = outbox.add(session, row.id, TEST, told)
        note(session, who, "webhook.test", row.id, project=row.project)
        session.flush()
        return delivery.id


def _query(project: str | None, owner: str | None, scope: Scope) -> Select[WebhookRow]:
    query = select(WebhookRow).order_by(WebhookRow.made, WebhookRow.id)
    if project is not None:
        query = query.where(WebhookRow.project == project)
    if owner is not None:
        check_text(owner, field="owner", most=100)
        query = query.where(WebhookRow.owner == owner)
    return query if scope is None else query.where(WebhookRow.project.in_(sorted(scope)))


def _delete(session: Session, row: WebhookRow, who: Who) -> None:
    session.execute(delete(DeliveryRow).where(DeliveryRow.webhook == row.id))
    detail = {"name": row.name, "owner": row.owner}
    note(session, who, "webhook.delete", row.id, project=row.project, detail=detail)
    session.delete(row)


def _locked(session: Session, webhook_id: str, scope: Scope) -> WebhookRow:
    check_text(webhook_id, field="webhook", most=100)
    row = session.get(WebhookRow, webhook_id, with_for_update=True)
    if row is None or (scope is not None and row.project not in scope):
        raise _unknown(webhook_id)
    return row


def _unknown(webhook_id: str) -> NotFound:
    return NotFound("no such webhook", field="webhook", value=webhook_id, mend="check its id")


def _checked(kinds: Sequence[str] | None) -> list[str] | None:
    """Kinds of events, each once and in their usual order; None for all. Raises Refusal."""
    for kind in kinds or ():
        if kind not in EVENT_KINDS:
            known = ", ".join(EVENT_KINDS)
            raise Refusal("no such event", field="events", value=kind, mend=f"give some of {known}")
    return [kind for kind in EVENT_KINDS if kind in kinds] if kinds else None


def _shown(row: WebhookRow, target: Target | None) -> dict[str, object]:
    """For the audit log. Of the URL only the server: its path may be what lets one in."""
    shown: dict[str, object] = {"name": row.name, "events": row.kinds}
    return shown if target is None else {**shown, "to": target.shown}


def _webhook(session: Session, row: WebhookRow, waiting: int | None = None) -> Webhook:
    if waiting is None:
        waiting = outbox.waiting_of(session, [row.id]).get(row.id, 0)
    return Webhook(
        id=row.id,
        project=row.project,
        owner=row.owner,
        name=row.name,
        url=row.url,
        kinds=None if row.kinds is None else tuple(row.kinds),
        made=row.made,
        disabled=row.disabled,
        disabled_why=row.disabled_why,
        failing_since=row.failing_since,
        last_at=row.last_at,
        last_status=row.last_status,
        last_error=row.last_error,
        old_until=row.old_until,
        waiting=waiting,
    )
