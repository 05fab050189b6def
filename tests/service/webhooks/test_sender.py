"""The sender of a server: what waits is sent, and it ends at once."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from evomerge.errors import StorageError
from evomerge.service.database.engine import Database
from evomerge.service.store.people import Project
from evomerge.service.webhooks import deliveries, subscriptions
from evomerge.service.webhooks.post import Post
from evomerge.service.webhooks.sender import Sender, Try
from tests.service.jobs import ADMIN, queued
from tests.service.webhooks.hooks import begun, claimed, ended, hooked, make_due, told
from tests.service.webhooks.receiver import LOCAL, OK, Receiver, answer, in_a_thread, is_signed

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)


async def send_all(sender: Sender, **options: Any) -> None:
    """What a server's thread does, until nothing is due."""
    async with Post(LOCAL, **options) as post:
        while tries := await sender.begin(post):
            await asyncio.gather(*tries)


def test_what_happened_to_a_job_arrives_signed_and_with_one_id(
    database: Database, project: Project
) -> None:
    receiver, tries = Receiver([answer(503), OK]), list[Try]()
    sender = Sender(database, lambda: Post(LOCAL), told=tries.append)

    async def serve() -> None:
        async with receiver.listening():
            webhook, secret = hooked(
                database, project.id, url=receiver.url, kinds=["job.succeeded"]
            )
            queued(database, project.id, name="kana")
            ended(database, begun(database))
            await send_all(sender)
            assert subscriptions.get(database, webhook.id).condition == "failing"
            make_due(database)
            await send_all(sender)
            assert subscriptions.get(database, webhook.id).condition == "active"
            first, second = receiver.received
            assert is_signed(first, secret)
            assert is_signed(second, secret)
            assert first.headers["webhook-id"] == second.headers["webhook-id"]
            assert first.body == second.body
            assert first.document["data"]["name"] == "kana"
            [kept] = told(database, webhook)
            assert (kept.state, kept.attempts, kept.id) == (
                "delivered",
                2,
                first.headers["webhook-id"],
            )
            assert secret not in repr(tries)
            assert receiver.url not in repr(tries)

    asyncio.run(serve())
    assert [(each.outcome, each.status) for each in tries] == [("retried", 503), ("delivered", 200)]


def test_a_slow_receiver_delays_no_other(database: Database, project: Project) -> None:
    slow, quick = Receiver([None]), Receiver()
    sender = Sender(database, lambda: Post(LOCAL))

    async def serve() -> None:
        post = Post(LOCAL, timeout_s=3600.0)  # however slow this machine is at this moment
        async with slow.listening(), quick.listening(), post:
            for receiver in (slow, quick):
                hooked(database, project.id, url=receiver.url, kinds=["job.queued"])
            for _ in range(6):
                queued(database, project.id)
            while len(quick.received) < 6:
                await asyncio.wait(await sender.begin(post), return_when=asyncio.FIRST_COMPLETED)
            while len(tries := await sender.begin(post)) > 4:
                await asyncio.wait(tries, return_when=asyncio.FIRST_COMPLETED)
            assert len(slow.received) == len(tries) == 4
            await sender.give_back()

    asyncio.run(serve())
    assert len(claimed(database)) == 6  # given back at once


def test_a_try_that_has_not_begun_is_given_back(database: Database, project: Project) -> None:
    hooked(database, project.id, kinds=["job.queued"])
    queued(database, project.id)
    sender = Sender(database, lambda: Post(LOCAL))

    async def serve() -> None:
        async with Post(LOCAL) as post:
            assert len(await sender.begin(post)) == 1
            await sender.give_back()  # before the loop has given the try its first step

    asyncio.run(serve())
    assert [each.attempt for each in claimed(database)] == [2]


def test_a_server_stops_while_a_receiver_is_silent(database: Database, project: Project) -> None:
    with in_a_thread(Receiver([None])) as receiver:
        webhook, _ = hooked(database, project.id, url=receiver.url)
        subscriptions.send_test(database, webhook.id, who=ADMIN)
        sender = Sender(database, lambda: Post(LOCAL, timeout_s=3600.0), poll_s=0.01)
        sender.start()
        assert receiver.took.wait(60)
        sender.stop()  # it would take an hour to wait for the answer
        assert [each.attempt for each in claimed(database)] == [2]


def test_a_sender_outlives_a_database_that_is_away(
    database: Database, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Event()
    real = deliveries.claim

    def again(*arguments: Any, **options: Any) -> Any:
        tried.set()
        return real(*arguments, **options)

    def away(*_: object, **__: object) -> Any:
        monkeypatch.setattr(deliveries, "claim", again)
        raise StorageError("the database gives no access")

    monkeypatch.setattr(deliveries, "claim", away)
    sender = Sender(database, lambda: Post(LOCAL), poll_s=0.001)
    sender.start()
    assert tried.wait(60)
    sender.stop()
