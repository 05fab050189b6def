"""Claims: each job once, by priority, a fair share between owners, and its place."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from evomerge.service.database.engine import Database
from evomerge.service.queue import states
from evomerge.service.queue.claim import claim, server_of, server_text
from evomerge.service.queue.states import Ending
from evomerge.service.runner.identity import ProcessIdentity
from evomerge.service.settings import Limits
from evomerge.service.store import events, jobs
from evomerge.service.store.job import Job, JobFilter
from evomerge.service.store.people import Project
from tests.processes import begin
from tests.service.jobs import ADMIN, HERE, queued
from tests.service.queue.claimer import claim_all

NO_LIMITS = Limits()


def claimed(database: Database, **limits: int) -> Job | None:
    return claim(database, HERE, Limits(**limits))


def done(database: Database, job: Job, *, used_s: float = 0.0) -> None:
    assert states.begin(database, job.id, job.claim, HERE) is not None
    ending = Ending(outcome="succeeded", used_s=used_s)
    states.finish(database, job.id, job.claim, ending, backoff_s=0.0)


def order(database: Database) -> list[str]:
    """Names of jobs in the order in which one machine with one slot would run them."""
    names = []
    while (job := claimed(database)) is not None:
        names.append(job.name)
        done(database, job, used_s=10.0)
    return names


def test_no_job_is_claimed_twice_by_eight_claimers(
    database: Database, url: str, project: Project, tmp_path: Path, faults: bool
) -> None:
    count = 2000 if faults else 200
    wanted = {queued(database, project.id, owner=f"owner{n % 5}").id for n in range(count)}
    start = tmp_path / "start"
    with ExitStack() as running:
        claimers = [running.enter_context(begin(claim_all, url, start)) for _ in range(8)]
        for claimer in claimers:
            assert claimer.said.readline() == "ready\n"
        start.touch()
        said = [claimer.said.read().split() for claimer in claimers]
        assert [claimer.wait() for claimer in claimers] == [0] * 8, said
    ran = [job for claimer in said for job in claimer]
    assert len(ran) == len(set(ran)) == count
    assert set(ran) == wanted
    page = jobs.find(database, JobFilter(states=("succeeded",)), limit=1)
    assert page.total == count
    states_seen = [event.body["state"] for event in events.read(database, ran[0])]
    assert states_seen == ["queued", "starting", "running", "succeeded"]


def test_a_higher_priority_runs_first(database: Database, project: Project) -> None:
    for name, priority in (("low", -1), ("usual", 0), ("high", 5)):
        queued(database, project.id, name=name, priority=priority)
    assert order(database) == ["high", "usual", "low"]


def test_owners_take_turns(database: Database, project: Project) -> None:
    for name in ("a1", "a2", "a3"):
        queued(database, project.id, name=name, owner="ann")
    for name in ("b1", "b2"):
        queued(database, project.id, name=name, owner="bob")
    assert order(database) == ["a1", "b1", "a2", "b2", "a3"]


def test_who_runs_fewer_jobs_comes_first(database: Database, project: Project) -> None:
    for name in ("a1", "a2"):
        queued(database, project.id, name=name, owner="ann")
    queued(database, project.id, name="b1", owner="bob")
    names = [job.name for _ in range(3) if (job := claimed(database)) is not None]
    assert names == ["a1", "b1", "a2"]


def test_who_used_less_time_lately_comes_first(database: Database, project: Project) -> None:
    queued(database, project.id, name="long", owner="ann")
    long = claimed(database)
    assert long is not None
    done(database, long, used_s=3600.0)
    queued(database, project.id, name="a", owner="ann")
    queued(database, project.id, name="b1", owner="bob")
    queued(database, project.id, name="b2", owner="bob")
    assert order(database) == ["b1", "b2", "a"]


def test_no_more_jobs_of_a_person_run_than_may(database: Database, project: Project) -> None:
    for name in ("a1", "a2"):
        queued(database, project.id, name=name, owner="ann", priority=9)
    queued(database, project.id, name="b1", owner="bob")
    first = claimed(database, jobs_running=1)
    second = claimed(database, jobs_running=1)
    assert first is not None
    assert second is not None
    assert (first.name, second.name) == ("a1", "b1")
    assert claimed(database, jobs_running=1) is None
    done(database, first)
    third = claimed(database, jobs_running=1)
    assert third is not None
    assert third.name == "a2"


def test_a_job_waits_until_its_time(database: Database, project: Project) -> None:
    queued(database, project.id, name="later", not_before=3.9e9)
    queued(database, project.id, name="past", not_before=1.0)
    assert order(database) == ["past"]


def test_a_deleted_paused_or_cancelled_job_is_not_claimed(
    database: Database, project: Project
) -> None:
    job = queued(database, project.id)
    jobs.soft_delete(database, job.id, who=ADMIN)
    assert claimed(database) is None


def test_slots_count_what_runs_on_this_machine_whoever_started_it(
    database: Database, project: Project
) -> None:
    for _ in range(3):
        queued(database, project.id)
    elsewhere = ProcessIdentity(host="other", boot="another/1", pid=7, started="1")
    earlier = replace(HERE, pid=1, started="0")
    assert claim(database, elsewhere, NO_LIMITS, slots=1) is not None
    assert claim(database, earlier, NO_LIMITS, slots=1) is not None
    assert claim(database, HERE, NO_LIMITS, slots=1) is None
    assert claim(database, HERE, NO_LIMITS, slots=2) is not None


def test_a_server_is_read_back_from_its_text() -> None:
    assert server_of(server_text(HERE)) == HERE
