"""The numbers of a server for Prometheus: requests, watchers, jobs, the queue, the disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from evomerge.service.database.tables import JobRow

if TYPE_CHECKING:
    from evomerge.service.database.engine import Database
    from evomerge.service.settings import ServiceSettings

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_registry = CollectorRegistry(auto_describe=False)
_requests = Histogram(
    "evomerge_http_request_seconds",
    "Time until the first byte of an answer.",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
    registry=_registry,
)
watchers = Gauge("evomerge_watchers", "Open streams of live events.", registry=_registry)
feeds = Gauge("evomerge_watched_jobs", "Jobs that this server polls for.", registry=_registry)
events_sent = Counter("evomerge_events_sent", "Events sent to watchers.", registry=_registry)
logins_failed = Counter(
    "evomerge_failed_logins", "Requests with a token that cannot be used.", registry=_registry
)
webhook_tries = Counter(
    "evomerge_webhook_tries",
    "Tries of deliveries to webhooks, by how they ended.",
    ["outcome"],
    registry=_registry,
)
submitted = Counter("evomerge_jobs_submitted", "Jobs submitted here.", ["kind"], registry=_registry)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count an answer."""
    known = method if method in _METHODS else "other"
    _requests.labels(known, route, str(status)).observe(seconds)


class _OfTheService(Collector):
    """What is asked of the database and the disk when the numbers are read."""

    def __init__(self, database: Database, settings: ServiceSettings) -> None:
        self._database = database
        self._settings = settings

    def collect(self) -> Iterator[Metric]:
        """Jobs by state, the longest wait, running jobs by owner, webhooks, free space."""
        from evomerge.service.queue.limits import queue_state
        from evomerge.service.webhooks.deliveries import outbox_state

        queue = queue_state(self._database)
        jobs = GaugeMetricFamily("evomerge_jobs", "Jobs by state.", labels=["state"])
        for state, count in sorted(queue.by_state.items()):
            jobs.add_metric([state], count)
        yield jobs
        yield GaugeMetricFamily(
            "evomerge_queue_oldest_seconds",
            "How long the oldest job that could run has waited.",
            queue.oldest_queued_s or 0.0,
        )
        running = GaugeMetricFamily(
            "evomerge_running_jobs", "Running jobs of a person.", labels=["owner"]
        )
        for owner, count in sorted(queue.by_owner.items()):
            running.add_metric([owner], count)
        yield running
        attempts, wait_s = self._starts()
        yield GaugeMetricFamily(
            "evomerge_job_attempts", "Claims of the jobs that are kept.", attempts
        )
        yield GaugeMetricFamily(
            "evomerge_queue_wait_seconds",
            "Mean wait of the jobs that began in the last hour.",
            wait_s,
        )
        outbox = outbox_state(self._database)
        yield GaugeMetricFamily(
            "evomerge_webhook_waiting", "Deliveries that have not arrived yet.", outbox.waiting
        )
        yield GaugeMetricFamily(
            "evomerge_webhook_oldest_seconds", "How long the oldest of them waits.", outbox.oldest_s
        )
        webhooks = GaugeMetricFamily(
            "evomerge_webhooks_down", "Webhooks that take nothing.", labels=["condition"]
        )
        webhooks.add_metric(["failing"], outbox.failing)
        webhooks.add_metric(["disabled"], outbox.disabled)
        yield webhooks
        yield GaugeMetricFamily(
            "evomerge_disk_free_bytes",
            "Free space of the data folder.",
            shutil.disk_usage(self._settings.data).free,
        )

    def _starts(self) -> tuple[int, float]:
        """Claims of all jobs; the mean wait of those that began lately."""
        wait = func.avg(JobRow.started - JobRow.queued)
        lately = JobRow.started > time.time() - 3600.0
        with self._database.read() as session:
            attempts = session.scalar(select(func.sum(JobRow.attempts)))
            wait_s = session.scalar(select(wait).where(lately, JobRow.queued <= JobRow.started))
        return int(attempts or 0), float(wait_s or 0.0)


def render(database: Database, settings: ServiceSettings) -> bytes:
    """All numbers in Prometheus' text form."""
    asked = CollectorRegistry(auto_describe=False)
    asked.register(_OfTheService(database, settings))
    return generate_latest(_registry) + generate_latest(asked)
