"""Live events: one poller for each watched job in a process, and a cursor for each watcher.

A feed holds the newest events of its job, in order. A watcher keeps only the number of its last
event: it takes what comes after that from the feed, or from the database where the feed does not
reach back so far. So no watcher can lose or double an event, however slow it reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from itertools import islice

import anyio.to_thread
from sse_starlette.event import ServerSentEvent

from evomerge.errors import StorageError
from evomerge.service.database.engine import Database
from evomerge.service.http import metrics
from evomerge.service.outage import Outage
from evomerge.service.store import events, jobs
from evomerge.service.store.events import StoredEvent
from evomerge.service.store.jobs import Job
from evomerge.service.store.refusals import NotFound

_log = logging.getLogger(__name__)

HELD = 2000
"""Events that a feed holds; who is further behind reads the database."""
PAGE = 500
"""Events of one query."""

_AWAY_S = 1.0
"""Between two looks of a watcher that is behind at a database that is away."""

END = "end"
"""Name of the last event of a stream: the job has ended, and nothing follows."""


class Feed:
    """The newest events of a job, for all its watchers in this process."""

    def __init__(self, database: Database, job: Job, poll_s: float, outage: Outage) -> None:
        self.job = job
        self.ended = False
        self.last = job.last_event
        self._database = database
        self._poll_s = poll_s
        self._outage = outage
        self._held: deque[StoredEvent] = deque(maxlen=HELD)
        self._news = asyncio.Event()
        self._watchers = 0
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Poll while there is a watcher."""
        self._watchers += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._poll())
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._task.cancel()

    @property
    def unwatched(self) -> bool:
        """Whether nobody watches."""
        return not self._watchers

    async def after(self, seq: int) -> list[StoredEvent]:
        """The events after a number, at most a page; none where there is nothing new."""
        if seq >= self.last:
            return []
        if self._held and self._held[0].seq <= seq + 1:
            begin = seq + 1 - self._held[0].seq
            return list(islice(self._held, begin, begin + PAGE))
        return await anyio.to_thread.run_sync(self._read, seq)

    def _read(self, seq: int) -> list[StoredEvent]:
        return list(events.read(self._database, self.job.id, after=seq, limit=PAGE))

    async def wait(self, seq: int, seconds: float) -> None:
        """Wait for something after a number, or the end, for so many seconds at most."""
        news = self._news
        if seq >= self.last and not self.ended:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), seconds)

    async def _poll(self) -> None:
        """Look for new events; every one is read once, whatever the number of watchers."""
        while not self.ended:
            try:
                job, found = await anyio.to_thread.run_sync(self._look)
            except NotFound:  # purged
                self.ended = True
                self._tell()
                return
            except StorageError as error:
                self._outage.failed(error)
                await asyncio.sleep(5 * self._poll_s)
                continue
            self._outage.worked()
            self.job = job
            if found:
                self._held.extend(found)
                self.last = found[-1].seq
            # The state was read before the events, and a state's own event is written with it.
            if job.over and self.last >= job.last_event:
                self.ended = True
            if found or self.ended:
                self._tell()
            if len(found) < PAGE:
                await asyncio.sleep(self._poll_s)

    def _look(self) -> tuple[Job, list[StoredEvent]]:
        job = jobs.get(self._database, self.job.id)
        return job, [] if job.last_event <= self.last else self._read(self.last)

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Feeds:
    """The feeds of a process; a job that nobody watches has none."""

    def __init__(self, database: Database, poll_s: float) -> None:
        self._database = database
        self._poll_s = poll_s
        self._outage = Outage(_log, "events of watched jobs cannot be read")
        self._feeds: dict[str, Feed] = {}

    @contextlib.contextmanager
    def watched(self, job: Job) -> Iterator[Feed]:
        """The feed of a job, made for its first watcher and left by its last."""
        feed = self._feeds.get(job.id)
        if feed is None or feed.ended:
            feed = self._feeds[job.id] = Feed(self._database, job, self._poll_s, self._outage)
        metrics.watchers.inc()
        metrics.feeds.set(len(self._feeds))
        try:
            with feed.watched():
                yield feed
        finally:
            metrics.watchers.dec()
            if feed.unwatched and self._feeds.get(job.id) is feed:
                del self._feeds[job.id]
            metrics.feeds.set(len(self._feeds))


def written(event: StoredEvent) -> ServerSentEvent:
    """An event as it is sent; its id is what Last-Event-ID brings back."""
    body = {"seq": event.seq, "at": event.at, "event": event.name, **event.body}
    return ServerSentEvent(
        json.dumps(body, ensure_ascii=False, separators=(",", ":")),
        id=str(event.seq),
        event=event.name,
        sep="\n",
    )


async def watch(
    feeds: Feeds,
    job: Job,
    after: int,
    *,
    heartbeat_s: float,
    allowed: Callable[[], bool],
) -> AsyncGenerator[ServerSentEvent, None]:
    """The events of a job after a number, until it ends or the watcher may watch no more.

    allowed: asked as often as a heartbeat is due; it may ask the database. While that is away
    nothing new can be read, so the stream stays open.
    """
    clock = asyncio.get_running_loop().time
    with feeds.watched(job) as feed:
        seq, due = after, clock() + heartbeat_s
        # Browsers come back after this, also where they never got an event.
        yield ServerSentEvent(comment=f"events of {job.id} after {after}", retry=1000, sep="\n")
        while True:
            if clock() >= due:
                due = clock() + heartbeat_s
                with contextlib.suppress(StorageError):
                    if not await anyio.to_thread.run_sync(allowed):
                        return
                yield ServerSentEvent(comment="still here", sep="\n")
            try:
                found = await feed.after(seq)
            except StorageError:
                await asyncio.sleep(_AWAY_S)
                continue
            for event in found:
                seq = event.seq
                metrics.events_sent.inc()
                yield written(event)
            if found:
                continue
            if feed.ended:
                yield _end(feed.job)
                return
            await feed.wait(seq, max(0.0, due - clock()))


def _end(job: Job) -> ServerSentEvent:
    body = {"event": END, "job": job.id, "state": job.state, "cause": job.cause}
    return ServerSentEvent(json.dumps(body), event=END, sep="\n")
