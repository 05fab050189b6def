"""The sender of a server: a thread that claims deliveries and tries them, many at a time.

Any number of servers may send for one database. A receiver may get a delivery twice, with the same
id: where a server ended between the answer and its note of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from evomerge.errors import EvomergeError
from evomerge.service.database.engine import Database
from evomerge.service.outage import Outage
from evomerge.service.webhooks import deliveries
from evomerge.service.webhooks.deliveries import Answer, Claimed, Outcome
from evomerge.service.webhooks.post import Post

_log = logging.getLogger(__name__)

AT_ONCE = 64
"""Tries of a server at once."""

OF_ONE = 4
"""Of them to one webhook, so that a slow receiver takes nobody else's turn."""

_CLEAR_EVERY_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Try:
    """A try that has ended; nothing in it is secret. next_s: until the next one."""

    delivery: str
    webhook: str
    job: str | None
    kind: str
    attempt: int
    outcome: Outcome
    status: int | None
    error: str | None
    seconds: float
    next_s: float | None


class Sender:
    """Sends what waits; `start` it once, `stop` it at the end: the next server goes on."""

    def __init__(
        self,
        database: Database,
        make_post: Callable[[], Post],
        *,
        told: Callable[[Try], object] = lambda _: None,
        poll_s: float = 1.0,
        keep_s: float = 7 * 86400.0,
    ) -> None:
        """told: called with each try. keep_s: how long deliveries that ended are kept."""
        self._database = database
        self._make_post = make_post
        self._told = told
        self._poll_s = poll_s
        self._keep_s = keep_s
        self._busy: Counter[str] = Counter()
        self._tries: set[asyncio.Task[None]] = set()
        self._unanswered: dict[str, Claimed] = {}
        self._cleared = -_CLEAR_EVERY_S
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = threading.Event()
        self._wake: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what it was sending is tried again by the next server."""
        self._ended.set()
        if self._loop is not None and self._wake is not None:
            with contextlib.suppress(RuntimeError):  # its loop has ended
                self._loop.call_soon_threadsafe(self._wake.set)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._work())
        except Exception:
            _log.exception("webhooks are not sent any more by this server")

    async def _work(self) -> None:
        outage = Outage(_log, "webhooks cannot be sent")
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        async with self._make_post() as post:
            while not self._ended.is_set():
                try:
                    await self.begin(post)
                    await asyncio.to_thread(self._clear)
                except Exception as error:
                    outage.failed(error)
                else:
                    outage.worked()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_s):
                        await self._wake.wait()
                if not self._ended.is_set():
                    self._wake.clear()
            await self.give_back()

    async def begin(self, post: Post) -> set[asyncio.Task[None]]:
        """Begin a try of what is due, as far as there is room; the tries that are under way."""
        claimed = await asyncio.to_thread(
            deliveries.claim,
            self._database,
            most=AT_ONCE - len(self._tries),
            most_each=OF_ONE,
            busy=dict(self._busy),
        )
        for each in claimed:
            self._unanswered[each.id] = each
            self._busy[each.webhook] += 1
            task = asyncio.create_task(self._try(post, each))
            self._tries.add(task)
            task.add_done_callback(self._tries.discard)
        return set(self._tries)

    async def give_back(self) -> None:
        """End all tries; the next server tries at once what no receiver has answered."""
        for task in self._tries:
            task.cancel()
        await asyncio.gather(*self._tries, return_exceptions=True)
        # Not by the tries themselves: one that is cancelled before its first step does nothing.
        with contextlib.suppress(EvomergeError):
            for claimed in self._unanswered.values():
                await asyncio.to_thread(deliveries.release, self._database, claimed)

    async def _try(self, post: Post, claimed: Claimed) -> None:
        began = time.monotonic()
        try:
            answer = await post.send(claimed)
        finally:
            self._busy[claimed.webhook] -= 1
        del self._unanswered[claimed.id]
        try:
            await asyncio.to_thread(self._settle, claimed, answer, time.monotonic() - began)
        except EvomergeError as error:  # its claim runs out, and it is tried again
            _log.warning("delivery %s: its try could not be noted: %s", claimed.id, error)
        except Exception:
            _log.exception("delivery %s: its try could not be noted", claimed.id)
        if self._wake is not None:
            self._wake.set()  # there is room for another

    def _settle(self, claimed: Claimed, answer: Answer, seconds: float) -> None:
        settled = deliveries.settle(self._database, claimed, answer)
        if settled is None:
            return
        outcome, next_s = settled
        self._told(
            Try(
                delivery=claimed.id,
                webhook=claimed.webhook,
                job=claimed.job,
                kind=claimed.kind,
                attempt=claimed.attempt,
                outcome=outcome,
                status=answer.status,
                error=answer.error,
                seconds=seconds,
                next_s=next_s,
            )
        )

    def _clear(self) -> None:
        if time.monotonic() - self._cleared >= _CLEAR_EVERY_S:
            self._cleared = time.monotonic()
            deliveries.clear(self._database, older_than_s=self._keep_s)
