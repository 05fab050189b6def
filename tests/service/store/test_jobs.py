"""Jobs in the store: submitted once, seen by who may, listed in pages, edited, deleted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from evomerge.service.database.engine import Database
from evomerge.service.database.tables import JobRow
from evomerge.service.queue import states
from evomerge.service.queue.claim import claim
from evomerge.service.queue.limits import ahead, queue_state
from evomerge.service.queue.states import Ending
from evomerge.service.settings import Limits
from evomerge.service.store import audit, events, jobs
from evomerge.service.store.events import NewEvent
from evomerge.service.store.job import Job, JobFilter
from evomerge.service.store.people import Project, make_project
from evomerge.service.store.refusals import Conflict, NotFound, OverLimit, Refusal
from tests.service.jobs import ADMIN, HERE, new_job, queued


def ended(database: Database, job: Job) -> Job:
    """The job once it has succeeded; it must be the next one."""
    claimed = claim(database, HERE, Limits())
    assert claimed is not None
    assert claimed.id == job.id
    states.begin(database, job.id, claimed.claim, HERE)
    ending = Ending(outcome="succeeded")
    return states.finish(database, job.id, claimed.claim, ending, backoff_s=0.0)


def test_a_job_is_kept_as_it_was_submitted(database: Database, project: Project) -> None:
    request = {"text": "日本\x00語 \ud800", "numbers": [1, 0.1, 1e-300], "none": None}
    job = queued(database, project.id, request=request, name="名前", priority=3, not_before=5.5)
    again = jobs.get(database, job.id)
    assert again == job
    assert (again.request, again.name, again.state) == (request, "名前", "queued")
    [event] = events.read(database, job.id)
    assert (event.seq, event.name, event.body["state"]) == (1, "state", "queued")
    [entry] = audit.find(database, what=job.id).items
    assert (entry.act, entry.who, entry.from_address) == ("job.submit", "admin", "127.0.0.1")
    assert entry.project == project.id


def test_the_same_key_gives_the_same_job_also_at_once(database: Database, project: Project) -> None:
    new = new_job(project.id, idempotency="key")

    def submit(_: int) -> tuple[str, bool]:
        job, created = jobs.submit(database, new, who=ADMIN)
        return job.id, created

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(submit, range(12)))
    assert len({job_id for job_id, _ in made}) == 1
    assert [created for _, created in made].count(True) == 1
    with pytest.raises(Conflict, match="another request") as caught:
        jobs.submit(database, new_job(project.id, idempotency="key", request={}), who=ADMIN)
    assert caught.value.field == "Idempotency-Key"
    other, created = jobs.submit(
        database, new_job(project.id, idempotency="key", owner="bob"), who=ADMIN
    )
    assert created
    assert other.id != made[0][0]


def test_a_key_tells_nothing_of_another_project(database: Database, project: Project) -> None:
    elsewhere = make_project(database, "elsewhere", who=ADMIN)
    first, _ = jobs.submit(database, new_job(project.id, idempotency="key"), who=ADMIN)
    other, created = jobs.submit(database, new_job(elsewhere.id, idempotency="key"), who=ADMIN)
    assert created
    assert other.id != first.id
    assert first.idempotency == other.idempotency == "key"
    with database.write() as session:  # as earlier versions kept it
        session.get_one(JobRow, first.id).idempotency = "key"
    again, created = jobs.submit(database, new_job(project.id, idempotency="key"), who=ADMIN)
    assert (again.id, created) == (first.id, False)


def test_no_more_jobs_of_a_person_wait_than_may(database: Database, project: Project) -> None:
    for _ in range(2):
        jobs.submit(database, new_job(project.id), who=ADMIN, most_queued=2)
    with pytest.raises(OverLimit, match="2 jobs of ann wait already"):
        jobs.submit(database, new_job(project.id), who=ADMIN, most_queued=2)
    jobs.submit(database, new_job(project.id, owner="bob"), who=ADMIN, most_queued=2)


def test_a_job_of_another_project_is_not_found(database: Database, project: Project) -> None:
    job = queued(database, project.id)
    other = make_project(database, "other", who=ADMIN)
    scope = frozenset({other.id})
    for act in (
        lambda: jobs.get(database, job.id, scope=scope),
        lambda: jobs.edit(database, job.id, scope=scope, who=ADMIN, changes={"name": "x"}),
        lambda: jobs.soft_delete(database, job.id, scope=scope, who=ADMIN),
        lambda: jobs.restore(database, job.id, scope=scope, who=ADMIN),
    ):
        with pytest.raises(NotFound) as caught:
            act()
        with pytest.raises(NotFound) as unknown:
            jobs.get(database, "jaaaaaaaaaaaaaaa", scope=scope)
        assert str(caught.value).replace(job.id, "") == str(unknown.value).replace(
            "jaaaaaaaaaaaaaaa", ""
        )
    assert jobs.find(database, JobFilter(), scope=scope).total == 0
    assert jobs.find(database, JobFilter(), scope=frozenset()).items == ()
    assert queue_state(database, scope=scope).by_state == {}


@pytest.mark.parametrize(
    "job_id", ["", "j", "j\0", "x" * 5000, "../etc", "日本", "j" * 16 + "\ud800"]
)
def test_what_is_no_id_is_not_found(database: Database, job_id: str) -> None:
    with pytest.raises(NotFound):
        jobs.get(database, job_id)


def test_jobs_are_listed_in_pages_newest_first(database: Database, project: Project) -> None:
    made = [queued(database, project.id, name=f"job {n}").id for n in range(7)]
    seen: list[str] = []
    cursor = None
    while True:
        page = jobs.find(database, JobFilter(), limit=3, cursor=cursor)
        assert page.total == 7
        seen += [job.id for job in page.items]
        cursor = page.cursor
        if cursor is None:
            break
        # What is new meanwhile is before the first page, and moves no other.
        newer = queued(database, project.id, name="newer")
        jobs.soft_delete(database, newer.id, who=ADMIN)
    assert seen == made[::-1]


def test_jobs_are_found_by_each_filter(database: Database, project: Project) -> None:
    other = make_project(database, "other", who=ADMIN)
    a = queued(database, project.id, name="100% Kana_1", owner="ann")
    b = queued(database, other.id, name="grid", owner="bob", kind="grid", parent=a.id)
    deleted = queued(database, project.id, name="gone")
    jobs.soft_delete(database, deleted.id, who=ADMIN)
    for wanted, found in (
        (JobFilter(), {a.id, b.id}),
        (JobFilter(project=other.id), {b.id}),
        (JobFilter(owner="ann"), {a.id}),
        (JobFilter(kinds=("grid", "check")), {b.id}),
        (JobFilter(states=("queued",)), {a.id, b.id}),
        (JobFilter(states=("running",)), set()),
        (JobFilter(parent=a.id), {b.id}),
        (JobFilter(q="kana_"), {a.id}),
        (JobFilter(q="%"), {a.id}),
        (JobFilter(q=b.id[2:9]), {b.id}),
        (JobFilter(deleted=True), {deleted.id}),
    ):
        assert {job.id for job in jobs.find(database, wanted).items} == found, wanted


@pytest.mark.parametrize("cursor", ["x", "1~2~3", "nan", "~", "1e400~j", "1~\0", "9" * 400])
def test_a_made_up_cursor_is_refused(database: Database, cursor: str) -> None:
    with pytest.raises(Refusal):
        jobs.find(database, JobFilter(), cursor=cursor)
    if cursor != "x":
        with pytest.raises(Refusal):
            audit.find(database, cursor=cursor)


def test_a_job_is_edited_while_it_has_not_ended(database: Database, project: Project) -> None:
    job = queued(database, project.id)
    changes = {
        "name": "new",
        "priority": 7,
        "not_before": None,
        "max_duration_s": 60.0,
        "retries": 1,
    }
    edited = jobs.edit(database, job.id, who=ADMIN, changes=changes)
    assert (edited.name, edited.priority, edited.max_duration_s) == ("new", 7, 60.0)
    assert edited.retries_left == 1
    job = ended(database, job)
    with pytest.raises(Conflict):
        jobs.edit(database, job.id, who=ADMIN, changes={"priority": 1})
    assert jobs.edit(database, job.id, who=ADMIN, changes={"name": "last"}).name == "last"
    assert [entry.detail for entry in audit.find(database, act="job.edit").items][-1] == changes


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("priority", 1001),
        ("not_before", float("inf")),
        ("not_before", float("nan")),
        ("max_duration_s", 0.0),
        ("retries", -1),
        ("name", "a\0b"),
        ("name", "x" * 201),
        ("name", "\ud800"),
        ("state", "running"),
    ],
)
def test_a_value_that_cannot_be_kept_is_refused_with_its_field(
    database: Database, project: Project, field: str, value: object
) -> None:
    job = queued(database, project.id)
    with pytest.raises(Refusal) as caught:
        jobs.edit(database, job.id, who=ADMIN, changes={field: value})
    assert caught.value.field == field
    assert jobs.get(database, job.id) == job


def test_a_deletion_is_taken_back_or_purged(database: Database, project: Project) -> None:
    job = queued(database, project.id)
    deleted = jobs.soft_delete(database, job.id, who=ADMIN)
    assert (deleted.state, deleted.deleted is not None) == ("cancelled", True)
    assert jobs.to_purge(database, older_than_s=3600.0) == ()
    with pytest.raises(Conflict):
        jobs.restore(database, queued(database, project.id, owner="x").id, who=ADMIN)
    assert jobs.restore(database, job.id, who=ADMIN).deleted is None
    with pytest.raises(Conflict):
        jobs.purge(database, job.id)
    jobs.soft_delete(database, job.id, who=ADMIN)
    assert [each.id for each in jobs.to_purge(database, older_than_s=-1.0)] == [job.id]
    jobs.purge(database, job.id)
    assert events.read(database, job.id) == ()
    [entry] = audit.find(database, act="job.purge").items
    assert (entry.who, entry.what) == ("service", job.id)


def test_a_deleted_job_that_runs_is_stopped_first_and_a_parent_waits_for_its_children(
    database: Database, project: Project
) -> None:
    job = queued(database, project.id)
    claimed = claim(database, HERE, Limits())
    assert claimed is not None
    assert jobs.soft_delete(database, job.id, who=ADMIN).wanted == "cancel"
    assert jobs.to_purge(database, older_than_s=-1.0) == ()
    states.begin(database, job.id, claimed.claim, HERE)
    assert jobs.get(database, job.id).state == "cancelled"
    child = queued(database, project.id, kind="export", parent=job.id)
    assert jobs.to_purge(database, older_than_s=-1.0) == ()
    jobs.soft_delete(database, child.id, who=ADMIN)
    assert {each.id for each in jobs.to_purge(database, older_than_s=-1.0)} == {job.id, child.id}


def test_an_act_that_fails_is_not_in_the_audit_log(database: Database, project: Project) -> None:
    with pytest.raises(NotFound):
        queued(database, "pzzzzzzzzzzzzzzz")
    with pytest.raises(NotFound):
        queued(database, project.id, parent="jzzzzzzzzzzzzzzz")
    assert [entry.act for entry in audit.find(database).items] == ["project.make"]


def test_events_are_numbered_without_gaps_and_read_from_any_number(
    database: Database, project: Project
) -> None:
    queued(database, project.id)
    job = claim(database, HERE, Limits())
    assert job is not None
    states.begin(database, job.id, job.claim, HERE)
    batch = [NewEvent(name="note", body={"text": f"{n}"}) for n in range(5)]
    assert events.append(database, job.id, batch, claim=job.claim, after=3) == 8
    # The answer was lost, and the batch is sent again.
    assert events.append(database, job.id, batch, claim=job.claim, after=3) == 8
    assert [event.seq for event in events.read(database, job.id)] == list(range(1, 9))
    assert [event.body["text"] for event in events.read(database, job.id, after=6)] == ["3", "4"]
    assert len(events.read(database, job.id, after=2, limit=3)) == 3
    assert events.newest(database, [job.id, "nothing"]) == {job.id: 8}


def test_a_number_that_json_cannot_hold_is_kept_as_nothing(
    database: Database, project: Project
) -> None:
    queued(database, project.id)
    job = claim(database, HERE, Limits())
    assert job is not None
    body = {"score": float("nan"), "means": {"task": {"acc": float("inf")}}, "items": (1, 2.5)}
    events.append(database, job.id, [NewEvent(name="note", body=body)], claim=job.claim)
    last = events.read(database, job.id)[-1]
    assert last.body == {"score": None, "means": {"task": {"acc": None}}, "items": [1, 2.5]}


def test_the_queue_says_how_full_it_is(database: Database, project: Project) -> None:
    first = queued(database, project.id, owner="ann")
    second = queued(database, project.id, owner="bob")
    third = queued(database, project.id, owner="bob", priority=5)
    assert [ahead(database, job) for job in (first, second, third)] == [1, 2, 0]
    claim(database, HERE, Limits())
    state = queue_state(database)
    assert (state.by_state, state.by_owner) == ({"queued": 2, "starting": 1}, {"bob": 1})
    assert state.oldest_queued_s is not None
    assert 0.0 <= state.oldest_queued_s < 3600.0
