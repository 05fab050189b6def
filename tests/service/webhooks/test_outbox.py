"""What is told of a job, written with the change of the job and in no other way."""

from __future__ import annotations

import json

import pytest

from evomerge.service.database.engine import Database, open_database
from evomerge.service.database.tables import DeliveryRow, JobRow, WebhookRow
from evomerge.service.queue import moves, states
from evomerge.service.store import jobs, people
from evomerge.service.store.people import Project
from evomerge.service.webhooks import deliveries, outbox, subscriptions
from evomerge.service.webhooks.subscriptions import Changes
from tests.service.jobs import ADMIN, queued, settings_in
from tests.service.webhooks.hooks import begun, claimed, ended, hooked, told
from tests.service.webhooks.receiver import LOCAL

EMBEDDED = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)


def test_every_change_of_a_job_is_told_once(
    database: Database, project: Project, tmp_path: object
) -> None:
    webhook, _ = hooked(database, project.id)
    job = queued(database, project.id, name="kana")
    states.lose(database, job.id, begun(database).claim, "its process was killed", backoff_s=0.0)
    running = begun(database)
    ended(database, running, outcome="failed", cause="worker", message="a worker died")
    settings = settings_in(tmp_path)  # type: ignore[arg-type]
    moves.wish(database, job.id, "pause", settings=settings, who=ADMIN)
    moves.wish(database, job.id, "run", settings=settings, who=ADMIN)
    ended(database, begun(database))
    other = queued(database, project.id)
    moves.wish(database, other.id, "cancel", settings=settings, who=ADMIN)
    failing = queued(database, project.id)
    ended(database, begun(database), outcome="failed", cause="input", message="no such model")
    assert [each.kind for each in told(database, webhook)] == [
        *("job.queued", "job.started", "job.lost", "job.resumed", "job.retrying", "job.paused"),
        *("job.queued", "job.resumed", "job.succeeded", "job.queued", "job.cancelled"),
        *("job.queued", "job.started", "job.failed"),
    ]
    facts = [each.data for each in claimed(database)]
    assert [each["number"] for each in facts if each["id"] == job.id] == sorted(
        each["number"] for each in facts if each["id"] == job.id
    )
    [lost] = [each for each in facts if each["cause"] == "lost"]
    assert (lost["message"], lost["state"], lost["attempt"]) == (
        "its process was killed",
        "queued",
        1,
    )
    [done] = [each for each in facts if each["state"] == "succeeded"]
    assert (done["name"], done["project"], done["owner"]) == ("kana", "merges", "ann")
    assert done["result"] == {"headline": "Gained +0.1"}
    [failed] = [each for each in facts if each["state"] == "failed"]
    assert (failed["id"], failed["message"], failed["result"]) == (
        failing.id,
        "no such model",
        None,
    )


@EMBEDDED
def test_only_what_is_asked_for_of_ones_own_project_is_told(
    database: Database, project: Project
) -> None:
    elsewhere = people.make_project(database, "elsewhere", who=ADMIN)
    everything, _ = hooked(database, project.id)
    some, _ = hooked(database, project.id, kinds=["export.succeeded", "job.failed"])
    off, _ = hooked(database, project.id)
    subscriptions.edit(database, off.id, Changes(enabled=False), destinations=LOCAL, who=ADMIN)
    theirs, _ = hooked(database, elsewhere.id)
    search = queued(database, project.id)
    ended(database, begun(database))
    queued(database, project.id, kind="export", parent=search.id)
    export = {"label": "g1", "verified": True, "files": [{"path": "x"}] * 1000}
    ended(database, begun(database), result=export)
    assert len(told(database, everything)) == 6
    assert [each.kind for each in told(database, some)] == ["export.succeeded"]
    assert told(database, off) == told(database, theirs) == []
    [told_of] = [each for each in claimed(database) if each.webhook == some.id]
    assert told_of.data["result"] == {"label": "g1", "verified": True}


@EMBEDDED
def test_a_change_that_is_not_kept_is_not_told(database: Database, project: Project) -> None:
    webhook, _ = hooked(database, project.id, kinds=["job.cancelled"])
    job = queued(database, project.id)

    class Killed(Exception):
        pass

    def change() -> None:
        with database.write() as session:
            states.move(session, session.get_one(JobRow, job.id), "cancelled")
            session.flush()
            raise Killed

    with pytest.raises(Killed):
        change()
    assert told(database, webhook) == []
    assert jobs.get(database, job.id).state == "queued"


@EMBEDDED
def test_a_kill_after_a_change_loses_nothing(url: str, database: Database) -> None:
    project = people.make_project(database, "merges", who=ADMIN)
    webhook, _ = hooked(database, project.id, kinds=["job.succeeded"])
    queued(database, project.id)
    ended(database, begun(database))
    [first] = claimed(database)
    database.close()  # the server is killed while it sends
    again = open_database(url)
    assert claimed(again) == []
    with again.write() as session:
        row = session.get_one(DeliveryRow, first.id)
        assert row.next_at is not None
        row.next_at -= deliveries.CLAIM_S
    [second] = claimed(again)
    assert (second.id, second.data, second.attempt) == (first.id, first.data, 2)
    assert subscriptions.get(again, webhook.id).waiting == 1
    again.close()


@EMBEDDED
def test_what_is_told_is_short_and_has_no_secret(database: Database, project: Project) -> None:
    webhook, secret = hooked(database, project.id)
    queued(database, project.id, name="x" * 200)
    result = {"headline": "h" * 10**6, "winner": None, "gain": {"value": 0.1}, "more": "m" * 10**6}
    ended(database, begun(database), result=result, message=None)
    job = queued(database, project.id)
    begun(database)
    states.lose(
        database,
        job.id,
        1,
        f"password=hunter2 {secret} hf_abcdefghijk " + "y" * 9999,
        backoff_s=0.0,
    )
    for each in claimed(database):
        text = json.dumps(dict(each.data))
        assert len(text) < 10_000
        assert not any(hidden in text for hidden in ("hunter2", secret, "hf_abcdefghijk"))
        assert secret not in repr(each)
    assert len(told(database, webhook)) == 6


@EMBEDDED
def test_more_than_may_wait_is_kept_as_failed(
    database: Database, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MOST_WAITING", 2)
    webhook, _ = hooked(database, project.id)
    for _ in range(3):
        queued(database, project.id)
    assert [each.state for each in told(database, webhook)] == ["waiting", "waiting", "failed"]
    assert "wait already" in str(told(database, webhook)[2].last_error)


def test_a_purged_job_and_a_deleted_webhook_leave_nothing(
    database: Database, project: Project
) -> None:
    webhook, _ = hooked(database, project.id)
    gone, _ = hooked(database, project.id)
    job, kept = queued(database, project.id), queued(database, project.id)
    jobs.soft_delete(database, job.id, who=ADMIN)
    jobs.purge(database, job.id)
    assert {each.job for each in told(database, webhook)} == {kept.id}
    subscriptions.remove(database, gone.id, who=ADMIN)
    assert told(database, gone) == []
    with database.write() as session:  # written while the webhook was deleted
        assert session.get(WebhookRow, gone.id) is None
        orphan = outbox.add(session, gone.id, "job.queued", {}).id
    assert {each.webhook for each in claimed(database)} == {webhook.id}
    assert deliveries.get(database, orphan) is None
