"""Deliveries: claimed by one server at a time, settled after each try, listed, and cleared away.

A claim moves the time of the next try beyond the longest that a try takes. So if the server is
killed, another takes the delivery over; and what an earlier claim says later is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from evomerge.service.database.engine import Database, now
from evomerge.service.database.tables import DeliveryRow, WebhookRow
from evomerge.service.store.pages import Page, newest_first
from evomerge.service.webhooks import schedule, subscriptions

DeliveryState = Literal["waiting", "delivered", "failed"]
Outcome = Literal["delivered", "retried", "failed", "gone"]

CLAIM_S = 60.0
"""How long a claim holds; a try takes ten seconds, and a clock may be off a little."""

_GONE = 410


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A delivery as it is kept. next_at: of the next try, while it waits."""

    id: str
    webhook: str
    job: str | None
    kind: str
    made: float
    state: DeliveryState
    attempts: int
    next_at: float | None
    last_at: float | None
    last_status: int | None
    last_error: str | None
    ended: float | None


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A delivery that this server is to send now. at: by the database's clock.

    secrets: of its webhook, which sign it; they must not be shown.
    """

    id: str
    webhook: str
    job: str | None
    kind: str
    made: float
    at: float
    attempt: int
    url: str
    secrets: tuple[str, ...]
    data: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"Claimed({self.id}, attempt {self.attempt})"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a try ended. status: None without an answer. asked_s: by its Retry-After."""

    status: int | None = None
    error: str | None = None
    asked_s: float | None = None

    @property
    def arrived(self) -> bool:
        """Whether the receiver has taken it."""
        return self.status is not None and 200 <= self.status < 300


def claim(
    db: Database, *, most: int, most_each: int, busy: Mapping[str, int] | None = None
) -> list[Claimed]:
    """Deliveries whose time has come, claimed for this server.

    most_each: of one webhook at once, so that a slow receiver takes no other's turn; busy: webhook
    -> how many of them this server sends already.
    """
    busy = busy or {}
    with db.read() as session:  # without one that is due nobody takes the write lock
        at = now(session)
        due = [
            (hook, count)
            for hook, count in session.execute(
                select(DeliveryRow.webhook, func.count())
                .where(DeliveryRow.state == "waiting", DeliveryRow.next_at <= at)
                .group_by(DeliveryRow.webhook)
                .order_by(func.min(DeliveryRow.next_at))
            )
            if busy.get(hook, 0) < most_each
        ]
    if not due or most < 1:
        return []
    claimed: list[Claimed] = []
    with db.write() as session:
        at = now(session)
        for hook_id, _ in due:
            free = min(most - len(claimed), most_each - busy.get(hook_id, 0))
            if free < 1:
                break
            claimed += _claim_of(session, hook_id, at, free)
    return claimed


def _claim_of(session: Session, hook_id: str, at: float, most: int) -> list[Claimed]:
    query = (
        select(DeliveryRow)
        .where(
            DeliveryRow.webhook == hook_id,
            DeliveryRow.state == "waiting",
            DeliveryRow.next_at <= at,
        )
        .order_by(DeliveryRow.next_at, DeliveryRow.id)
        .limit(most)
        # What another server claims at this moment is passed over.
        .with_for_update(skip_locked=True)
    )
    rows = session.scalars(query).all()
    hook = session.get(WebhookRow, hook_id)
    claimed = []
    for row in rows:
        if hook is None:  # deleted while this was written
            session.delete(row)
            continue
        if hook.disabled is not None:
            _end(row, "failed", at)
            row.last_error = "the webhook was disabled"
            continue
        row.attempts += 1
        row.next_at = at + CLAIM_S
        old = hook.old_until is not None and hook.old_until > at and hook.old_secret
        claimed.append(
            Claimed(
                id=row.id,
                webhook=hook.id,
                job=row.job,
                kind=row.kind,
                made=row.made,
                at=at,
                attempt=row.attempts,
                url=hook.url,
                secrets=(hook.secret, old) if old else (hook.secret,),
                data=row.data,
            )
        )
    return claimed


def settle(db: Database, sent: Claimed, answer: Answer) -> tuple[Outcome, float | None] | None:
    """Keep how a try ended; its outcome, and seconds until the next try where there is one.

    None if the delivery is no longer this claim's.
    """
    with db.write() as session:
        # Always the webhook first, as who changes it does, so that nobody waits in a circle.
        hook = session.get(WebhookRow, sent.webhook, with_for_update=True)
        row = session.get(DeliveryRow, sent.id, with_for_update=True)
        if row is None or row.state != "waiting" or row.attempts != sent.attempt or hook is None:
            return None
        at = now(session)
        for each in (row, hook):
            each.last_at, each.last_status, each.last_error = at, answer.status, answer.error
        if answer.arrived:
            hook.failing_since = None
            _end(row, "delivered", at)
            return "delivered", None
        if hook.failing_since is None:
            hook.failing_since = at
        if answer.status == _GONE:
            _end(row, "failed", at)
            session.flush()
            subscriptions.disable(session, hook, "its receiver answered 410 Gone")
            return "gone", None
        wait_s = schedule.wait_s(sent.attempt, asked_s=answer.asked_s)
        if wait_s is None or at + wait_s > row.made + schedule.LATEST_S:
            _end(row, "failed", at)
            return "failed", None
        row.next_at = at + wait_s
        return "retried", wait_s


def release(db: Database, sent: Claimed) -> None:
    """Give a claim back before its try has ended; the next server tries at once."""
    with db.write() as session:
        session.execute(
            update(DeliveryRow)
            .where(
                DeliveryRow.id == sent.id,
                DeliveryRow.state == "waiting",
                DeliveryRow.attempts == sent.attempt,
            )
            .values(next_at=now(session))
        )


def _end(row: DeliveryRow, state: DeliveryState, at: float) -> None:
    row.state, row.next_at, row.ended = state, None, at


def find(
    db: Database,
    webhook_id: str,
    *,
    states: tuple[DeliveryState, ...] = (),
    limit: int = 50,
    cursor: str | None = None,
) -> Page[Delivery]:
    """Deliveries of a webhook, newest first. The asker's right is checked by `subscriptions.get`.

    Raises Refusal for a cursor that this did not give.
    """
    query = select(DeliveryRow).where(DeliveryRow.webhook == webhook_id)
    if states:
        query = query.where(DeliveryRow.state.in_(states))
    return newest_first(db, query, DeliveryRow, _delivery, limit=limit, cursor=cursor)


def get(db: Database, delivery_id: str) -> Delivery | None:
    """A delivery."""
    with db.read() as session:
        row = session.get(DeliveryRow, delivery_id)
        return None if row is None else _delivery(row)


def clear(db: Database, *, older_than_s: float) -> None:
    """Remove deliveries that ended long ago, and secrets that sign no more."""
    with db.read() as session:
        at = now(session)
        ended = DeliveryRow.ended < at - older_than_s
        expired = WebhookRow.old_until <= at
        old = session.scalars(select(DeliveryRow.id).where(ended).limit(1)).first()
        if old is None and session.scalars(select(WebhookRow.id).where(expired)).first() is None:
            return
    with db.write() as session:
        session.execute(delete(DeliveryRow).where(ended))
        session.execute(update(WebhookRow).where(expired).values(old_secret=None, old_until=None))


@dataclass(frozen=True, kw_only=True)
class OutboxState:
    """All webhooks together, for metrics. oldest_s: how long the oldest one waits."""

    waiting: int
    oldest_s: float
    failing: int
    disabled: int


def outbox_state(db: Database) -> OutboxState:
    """How much waits to be told, and how many webhooks take nothing."""
    with db.read() as session:
        waiting, first = session.execute(
            select(func.count(), func.min(DeliveryRow.made)).where(DeliveryRow.state == "waiting")
        ).one()
        enabled = WebhookRow.disabled.is_(None)
        failing = select(func.count()).where(enabled, WebhookRow.failing_since.is_not(None))
        disabled = select(func.count()).where(WebhookRow.disabled.is_not(None))
        return OutboxState(
            waiting=waiting,
            oldest_s=0.0 if first is None else max(0.0, now(session) - first),
            failing=session.scalar(failing) or 0,
            disabled=session.scalar(disabled) or 0,
        )


def _delivery(row: DeliveryRow) -> Delivery:
    kept = ("id", "webhook", "job", "kind", "made", "attempts", "next_at")
    last = ("last_at", "last_status", "last_error", "ended")
    facts = {key: getattr(row, key) for key in (*kept, *last)}
    return Delivery(**facts, state=cast(DeliveryState, row.state))
