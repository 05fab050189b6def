"""Deliveries: claimed once, tried again by the schedule, and given up in the end."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from evomerge.service.database.engine import Database, open_database
from evomerge.service.database.tables import DeliveryRow, WebhookRow
from evomerge.service.store.people import Project
from evomerge.service.webhooks import deliveries, outbox, schedule, subscriptions
from evomerge.service.webhooks.deliveries import Answer
from evomerge.service.webhooks.subscriptions import Changes
from tests.service.jobs import ADMIN
from tests.service.webhooks.hooks import claimed, hooked, make_due, told
from tests.service.webhooks.receiver import LOCAL

EMBEDDED = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)


def test_no_delivery_is_claimed_twice_by_several_servers(
    database: Database, url: str, project: Project
) -> None:
    hooks = [hooked(database, project.id)[0].id for _ in range(3)]
    with database.write() as session:
        wanted = {
            outbox.add(session, hook, "job.queued", {}).id for hook in hooks for _ in range(40)
        }

    def work(_: int) -> list[str]:
        server = open_database(url)
        found = []
        while batch := deliveries.claim(server, most=7, most_each=3):
            found += [each.id for each in batch]
            for each in batch[::2]:  # the rest is under way meanwhile
                deliveries.settle(server, each, Answer(status=200))
        server.close()
        return found

    with ThreadPoolExecutor(4) as pool:
        ids = [each for found in pool.map(work, range(4)) for each in found]
    assert len(ids) == len(set(ids)) == 120
    assert set(ids) == wanted


def test_waits_grow_over_a_day_with_a_random_part() -> None:
    draw = random.Random(7)
    waits = list[float]()
    while (wait_s := schedule.wait_s(len(waits) + 1, draw=draw)) is not None:
        waits.append(wait_s)
    assert len(waits) == schedule.TRIES - 1
    usual = [10, 30, 90, 270, 810, 2430, 7290, *[14400] * 5]
    for wait_s, middle in zip(waits, usual, strict=True):
        assert 0.8 * middle <= wait_s <= 1.2 * middle
        assert wait_s != middle
    assert 20 * 3600 < sum(usual) < 26 * 3600
    assert len({schedule.wait_s(1) for _ in range(20)}) > 15


def test_a_receiver_may_ask_for_a_longer_wait_and_for_no_shorter_one() -> None:
    assert schedule.wait_s(1, asked_s=3600.0) == 3600.0
    assert (schedule.wait_s(8, asked_s=1.0) or 0) > 10_000
    assert schedule.wait_s(1, asked_s=1e12) == schedule.LONGEST_ASKED_S
    assert schedule.wait_s(schedule.TRIES, asked_s=1.0) is None


@EMBEDDED
def test_a_delivery_is_tried_by_the_clock_until_it_is_given_up(
    database: Database, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1e9
    for module in (deliveries, outbox):
        monkeypatch.setattr(module, "now", lambda _session: clock)
    webhook, _ = hooked(database, project.id)
    subscriptions.send_test(database, webhook.id, who=ADMIN)
    began = clock
    for attempt in range(1, schedule.TRIES + 1):
        [mine] = claimed(database)
        assert (mine.attempt, mine.at) == (attempt, clock)
        clock += 2.0
        settled = deliveries.settle(database, mine, Answer(status=500, error="answered 500"))
        assert settled is not None
        outcome, wait_s = settled
        [kept] = told(database, webhook)
        assert (kept.last_status, kept.last_error, kept.attempts) == (500, "answered 500", attempt)
        if attempt < schedule.TRIES:
            assert (outcome, kept.state) == ("retried", "waiting")
            assert wait_s is not None
            assert kept.next_at == pytest.approx(clock + wait_s)
            clock += wait_s - 1.0
            assert claimed(database) == []
            clock += 1.5
    assert (outcome, wait_s, kept.state, kept.next_at) == ("failed", None, "failed", None)
    assert 18 * 3600 < clock - began < 30 * 3600
    assert claimed(database) == []
    seen = subscriptions.get(database, webhook.id)
    assert (seen.condition, seen.failing_since) == ("failing", began + 2.0)
    subscriptions.send_test(database, webhook.id, who=ADMIN)
    [again] = claimed(database)
    deliveries.settle(database, again, Answer(status=204))
    assert subscriptions.get(database, webhook.id).condition == "active"
    clock += 8 * 86400.0
    deliveries.clear(database, older_than_s=7 * 86400.0)
    assert told(database, webhook) == []


def test_410_disables_a_webhook_and_ends_what_waits(database: Database, project: Project) -> None:
    webhook, _ = hooked(database, project.id)
    for _ in range(2):
        subscriptions.send_test(database, webhook.id, who=ADMIN)
    first, second = claimed(database)
    assert deliveries.settle(database, first, Answer(status=410, error="answered 410")) == (
        "gone",
        None,
    )
    seen = subscriptions.get(database, webhook.id)
    assert (seen.condition, seen.disabled_why, seen.waiting) == (
        "disabled",
        "its receiver answered 410 Gone",
        0,
    )
    assert {each.state for each in told(database, webhook)} == {"failed"}
    assert deliveries.settle(database, second, Answer(status=200)) is None
    enabled = subscriptions.edit(
        database, webhook.id, Changes(enabled=True), destinations=LOCAL, who=ADMIN
    )
    assert (enabled.condition, enabled.disabled_why) == ("active", None)


@EMBEDDED
def test_what_an_earlier_claim_says_is_passed_over(database: Database, project: Project) -> None:
    webhook, _ = hooked(database, project.id)
    subscriptions.send_test(database, webhook.id, who=ADMIN)
    [slow] = claimed(database)
    make_due(database)
    [later] = claimed(database)
    assert deliveries.settle(database, slow, Answer(status=500)) is None
    deliveries.release(database, slow)
    assert claimed(database) == []
    assert deliveries.settle(database, later, Answer(status=200)) == ("delivered", None)
    assert told(database, webhook)[0].last_status == 200


def test_one_webhook_takes_no_others_turn(database: Database, project: Project) -> None:
    busy, _ = hooked(database, project.id)
    quiet, _ = hooked(database, project.id)
    for _ in range(9):
        subscriptions.send_test(database, busy.id, who=ADMIN)
    subscriptions.send_test(database, quiet.id, who=ADMIN)
    found = deliveries.claim(database, most=64, most_each=4, busy={busy.id: 1})
    assert sorted(each.webhook for each in found) == sorted([busy.id] * 3 + [quiet.id])
    assert deliveries.claim(database, most=0, most_each=4) == []


@EMBEDDED
def test_a_replaced_secret_signs_for_its_time(database: Database, project: Project) -> None:
    webhook, first = hooked(database, project.id)
    changed, second = subscriptions.rotate(database, webhook.id, overlap_s=60.0, who=ADMIN)
    assert changed.old_until is not None
    subscriptions.send_test(database, webhook.id, who=ADMIN)
    assert claimed(database)[0].secrets == (second, first)
    with database.write() as session:
        row = session.get_one(WebhookRow, webhook.id)
        row.old_until = 1.0
        session.get_one(DeliveryRow, told(database, webhook)[0].id).next_at = 0.0
    assert claimed(database)[0].secrets == (second,)
    deliveries.clear(database, older_than_s=1e9)
    with database.read() as session:
        assert session.get_one(WebhookRow, webhook.id).old_secret is None
    _, third = subscriptions.rotate(database, webhook.id, overlap_s=0.0, who=ADMIN)
    make_due(database)
    assert claimed(database)[0].secrets == (third,)
