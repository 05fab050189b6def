"""Webhooks and jobs of these tests."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from evomerge.service.database.engine import Database
from evomerge.service.database.tables import DeliveryRow
from evomerge.service.queue import states
from evomerge.service.queue.claim import claim as claim_job
from evomerge.service.queue.states import Ending
from evomerge.service.settings import Limits
from evomerge.service.store.job import Job
from evomerge.service.webhooks import deliveries, subscriptions
from evomerge.service.webhooks.deliveries import Claimed, Delivery
from evomerge.service.webhooks.subscriptions import Webhook
from tests.service.jobs import ADMIN, HERE
from tests.service.webhooks.receiver import LOCAL

URL = "http://127.0.0.1:9999/hook"


def hooked(database: Database, project: str, **changes: Any) -> tuple[Webhook, str]:
    usual = {"project": project, "url": URL, "destinations": LOCAL, "who": ADMIN}
    return subscriptions.make(database, **{**usual, **changes})


def begun(database: Database) -> Job:
    """The next job, which runs from now on."""
    job = claim_job(database, HERE, Limits())
    assert job is not None
    assert states.begin(database, job.id, job.claim, HERE) is not None
    return job


def ended(database: Database, job: Job, **ending: Any) -> Job:
    usual = {"outcome": "succeeded", "result": {"headline": "Gained +0.1"}}
    return states.finish(database, job.id, job.claim, Ending(**{**usual, **ending}), backoff_s=0.0)


def told(database: Database, webhook: Webhook) -> list[Delivery]:
    """Its deliveries, the oldest first."""
    page = deliveries.find(database, webhook.id, limit=500)
    return sorted(page.items, key=lambda each: each.made)


def claimed(database: Database, most: int = 100) -> list[Claimed]:
    return deliveries.claim(database, most=most, most_each=most)


def make_due(database: Database) -> None:
    """Let the waits of all deliveries be over."""
    with database.write() as session:
        waiting = update(DeliveryRow).where(DeliveryRow.state == "waiting")
        session.execute(waiting.values(next_at=0.0))
