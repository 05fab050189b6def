"""Jobs as processes of their own: run, stopped, lost and found, whatever happens to the server."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from evomerge.service.database.engine import Database, now, open_database
from evomerge.service.queue import moves
from evomerge.service.queue.claim import claim
from evomerge.service.queue.lost import lost_jobs
from evomerge.service.runner.identity import identity_of, own_identity
from evomerge.service.settings import Limits, ServiceSettings
from evomerge.service.store import events, jobs
from evomerge.service.store.job import Job
from evomerge.service.store.people import Project
from tests.postgres import PASSWORD
from tests.service.jobs import ADMIN, settings_in
from tests.service.runner.servers import steps, submitted, supervising, wait, wait_for

EMBEDDED = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
"""For what does not depend on the kind of database, as each runner takes a second to begin."""


@pytest.fixture
def settings(tmp_path: Path) -> ServiceSettings:
    return settings_in(tmp_path)


def candidates(database: Database, job: Job) -> list[str]:
    kept = events.bodies(database, job.id, ["candidate_done"])
    return [body["candidate"] for _, body in kept]


def states_of(database: Database, job: Job) -> list[str]:
    return [body["state"] for _, body in events.bodies(database, job.id, ["state"])]


def running(database: Database, settings: ServiceSettings, job: Job, *, after: int = 3) -> Job:
    """The job once it runs and has done some steps."""
    wait(lambda: len(steps(settings, job)) >= after)
    return wait_for(database, job, "running")


def test_jobs_run_as_processes_and_keep_their_events(
    database: Database, settings: ServiceSettings, project: Project
) -> None:
    made = [submitted(database, settings, project.id, "steps 5") for _ in range(2)]
    with supervising(database, settings):
        ended = [wait_for(database, job, "succeeded") for job in made]
    for job in ended:
        assert job.result == {"steps": 5, "changes": {}}
        assert states_of(database, job) == ["queued", "starting", "running", "succeeded"]
        assert candidates(database, job) == [f"c{n}" for n in range(5)]
        assert job.used_s > 0.0
        numbers = [event.seq for event in events.read(database, job.id)]
        assert numbers == list(range(1, len(numbers) + 1))
        log = settings.log_file(job.id)
        assert f"attempt 1 of {job.id}" in log.read_text()
        assert log.stat().st_mode & 0o077 == 0


@EMBEDDED
def test_failures_have_their_causes(
    database: Database, settings: ServiceSettings, project: Project
) -> None:
    named = {
        name: submitted(database, settings, project.id, name, retries=retries)
        for name, retries in (("input", 3), ("bug", 0), ("worker", 3), ("killed", 0))
    }
    with supervising(database, settings):
        ended = {
            name: wait_for(database, job, "failed", "succeeded") for name, job in named.items()
        }
    assert ended["input"].message == "models.base: nowhere: no such folder; check the path"
    assert (ended["input"].cause, ended["input"].attempts) == ("input", 1)
    assert (ended["bug"].cause, ended["bug"].message) == ("unknown", "a bug")
    assert "Traceback" in settings.log_file(named["bug"].id).read_text()
    assert (ended["worker"].state, ended["worker"].attempts) == ("succeeded", 3)
    assert (ended["killed"].state, ended["killed"].attempts) == ("succeeded", 2)
    kept = [body for _, body in events.bodies(database, named["killed"].id, ["state"])]
    [lost] = [body for body in kept if body["cause"] == "lost"]
    assert "SIGKILL" in lost["message"]


def test_a_job_pauses_and_goes_on_and_is_cancelled(
    database: Database, settings: ServiceSettings, project: Project
) -> None:
    def wish(job: Job, wanted: str) -> None:
        moves.wish(database, job.id, wanted, settings=settings, who=ADMIN)

    job = submitted(database, settings, project.id, "steps 400")
    with supervising(database, settings):
        running(database, settings, job)
        wish(job, "pause")
        paused = wait_for(database, job, "paused")
        before = len(steps(settings, job))
        assert paused.runner is None
        wish(job, "run")
        running(database, settings, job, after=before + 3)
        wish(job, "cancel")
        wait_for(database, job, "cancelled")
    done = steps(settings, job)
    assert done == [str(n) for n in range(len(done))]
    assert states_of(database, job) == [
        *("queued", "starting", "running", "paused"),
        *("queued", "starting", "running", "cancelled"),
    ]


@EMBEDDED
def test_a_stopped_server_leaves_its_jobs_running_and_the_next_finds_them(
    database: Database, settings: ServiceSettings, project: Project
) -> None:
    job = submitted(database, settings, project.id, "steps 300")
    waiting = submitted(database, settings, project.id, "steps 3")
    with supervising(database, settings):
        first = running(database, settings, job)
    assert first.runner is not None
    assert first.runner.alive
    with supervising(database, settings):
        wait_for(database, waiting, "succeeded")
    ended = wait_for(database, job, "succeeded")
    assert ended.attempts == 1
    # The slot was taken while the first one ran.
    assert jobs.get(database, waiting.id).started >= ended.ended


def test_a_runner_killed_while_no_server_ran_is_taken_back_by_the_next(
    database: Database, settings: ServiceSettings, project: Project
) -> None:
    job = submitted(database, settings, project.id, "steps 100")
    with supervising(database, settings):
        first = running(database, settings, job)
    assert first.runner is not None
    first.runner.send(signal.SIGKILL)
    wait(lambda: not first.runner.alive)
    assert jobs.get(database, job.id).state == "running"
    with supervising(database, settings):
        ended = wait_for(database, job, "succeeded")
    assert ended.attempts == 2
    assert steps(settings, job) == [str(n) for n in range(100)]


@EMBEDDED
def test_a_process_with_the_number_of_a_dead_runner_is_not_taken_for_it(
    database: Database, settings: ServiceSettings, project: Project
) -> None:
    job = submitted(database, settings, project.id, "steps 20")
    me = own_identity()
    pretended = {
        "the same number, begun at another time": replace(me, started="1"),
        "the same number, in an earlier boot": replace(me, boot="earlier/1"),
    }
    for name, runner in pretended.items():
        with database.write() as session:
            session.execute(
                text(
                    "update job set state = 'running', claim = claim + 1, runner_host = :host, "
                    "runner_boot = :boot, runner_pid = :pid, runner_started = :started, "
                    "heartbeat_at = :at, server = :server where id = :id"
                ),
                {**vars(runner), "at": 1.0, "server": "x|1|1|x", "id": job.id},
            )
        [lost] = lost_jobs(database, lease_s=60.0)
        assert lost.job.id == job.id, name
        assert not lost.hangs
    with supervising(database, settings):
        wait_for(database, job, "succeeded")


def test_a_runner_of_another_machine_is_left_alone_until_its_lease_is_over(
    database: Database, settings: ServiceSettings, project: Project
) -> None:
    job = submitted(database, settings, project.id, "steps 3")
    query = text(
        "update job set state = 'running', claim = 1, runner_host = 'other', heartbeat_at = :at, "
        "runner_boot = 'other/1', runner_pid = 1, runner_started = '1', server = 'x|1|1|x' "
        "where id = :id"
    )
    for silent_s, gone in ((100.0, False), (121.0, True)):
        with database.write() as session:
            session.execute(query, {"at": now(session) - silent_s, "id": job.id})
        assert bool(lost_jobs(database, lease_s=60.0)) == gone


@EMBEDDED
def test_a_claim_whose_server_was_killed_before_its_runner_began_is_taken_back(
    database: Database, settings: ServiceSettings, project: Project
) -> None:
    job = submitted(database, settings, project.id, "steps 3")
    dead = replace(own_identity(), started="1")
    assert claim(database, dead, Limits()) is not None
    with supervising(database, settings):
        ended = wait_for(database, job, "succeeded")
    assert ended.attempts == 2


@EMBEDDED
def test_a_job_stops_at_its_longest_duration(
    database: Database, settings: ServiceSettings, project: Project
) -> None:
    job = submitted(database, settings, project.id, "steps 100000", max_duration_s=1.0)
    with supervising(database, settings):
        ended = wait_for(database, job, "failed")
    assert (ended.cause, ended.attempts) == ("max_duration", 1)
    assert ended.used_s >= 1.0


@EMBEDDED
def test_a_job_stops_where_room_runs_out_and_none_begins(
    database: Database, settings: ServiceSettings, project: Project, tmp_path: Path
) -> None:
    job = submitted(database, settings, project.id, "steps 100000", retries=0)
    with supervising(database, settings) as supervisor:
        running(database, settings, job)
        assert supervisor.held is None
        moves.wish(database, job.id, "pause", settings=settings, who=ADMIN)
        wait_for(database, job, "paused")
    full = replace(settings, least_memory_bytes=2**60)
    moves.wish(database, job.id, "run", settings=settings, who=ADMIN)
    with supervising(database, full) as supervisor:
        wait(lambda: supervisor.held is not None)
        assert supervisor.held.cause == "memory"
    assert jobs.get(database, job.id).state == "queued"


@EMBEDDED
def test_what_a_killed_runner_has_started_ends_with_it(
    database: Database, settings: ServiceSettings, project: Project
) -> None:
    job = submitted(database, settings, project.id, "child 100")
    with supervising(database, settings):
        first = running(database, settings, job)
        child = identity_of(int((settings.run_dir(job.id) / "child").read_text()))
        assert child.alive
        assert first.runner is not None
        first.runner.send(signal.SIGKILL)
        wait(lambda: not child.alive)
        wait_for(database, job, "succeeded")


def test_no_password_is_in_the_arguments_environment_or_folders_of_a_runner(
    settings: ServiceSettings, project: Project, database: Database, kind: str
) -> None:
    if kind == "sqlite":
        pytest.skip("an embedded database has no password")
    url = database.engine.url.set(password=PASSWORD)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PGPASSWORD")
        patch.setenv("EVOMERGE_DATABASE", url.render_as_string(hide_password=False))
        own = open_database(url.render_as_string(hide_password=False))
        job = submitted(own, settings, project.id, "steps 200")
        with supervising(own, settings):
            runner = running(own, settings, job).runner
            assert runner is not None
            for name in ("cmdline", "environ"):
                assert PASSWORD.encode() not in Path(f"/proc/{runner.pid}/{name}").read_bytes()
            moves.wish(own, job.id, "cancel", settings=settings, who=ADMIN)
            wait_for(own, job, "cancelled")
        own.close()
    for path in settings.data.rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), path
    for event in events.read(database, job.id):
        assert PASSWORD not in str(event)


@EMBEDDED
def test_a_deleted_job_is_purged_with_its_files(
    database: Database, settings: ServiceSettings, project: Project
) -> None:
    soon = replace(settings, purge_after_s=0.0)
    job = submitted(database, soon, project.id, "steps 3")
    with supervising(database, soon):
        wait_for(database, job, "succeeded")
    assert settings.run_dir(job.id).exists()
    jobs.soft_delete(database, job.id, who=ADMIN)
    with supervising(database, soon):
        wait(lambda: not jobs.to_purge(database, older_than_s=0.0))
    assert not settings.run_dir(job.id).exists()
    assert not settings.log_file(job.id).exists()
    with pytest.raises(Exception, match="no such job"):
        jobs.get(database, job.id)
