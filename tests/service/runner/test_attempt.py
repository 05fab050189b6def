"""An attempt: its causes, what interrupts it, and what it does while the database is away."""

from __future__ import annotations

import errno
import io
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from evomerge.errors import (
    EvomergeError,
    InputError,
    MergeError,
    RunError,
    SelfCheckError,
    StorageError,
    TaskError,
    WorkerError,
)
from evomerge.service.database.engine import Database, NoAccess
from evomerge.service.queue import moves, states
from evomerge.service.queue.claim import claim
from evomerge.service.queue.states import Ending
from evomerge.service.runner import reporter as reporter_module
from evomerge.service.runner.attempt import Failure, cause_of, ending_of, orders, run
from evomerge.service.runner.reporter import Reporter
from evomerge.service.settings import Limits, ServiceSettings
from evomerge.service.store import audit, events, jobs
from evomerge.service.store.events import NewEvent
from evomerge.service.store.job import Cause, Job
from evomerge.service.store.people import Project
from tests.postgres import Server
from tests.service.jobs import ADMIN, HERE, queued, settings_in

EMBEDDED = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)


def caused_by(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (InputError("x"), "input"),
        (TaskError("x"), "input"),
        (MergeError("nan"), "input"),
        (SelfCheckError("x"), "self_check"),
        (WorkerError("x"), "worker"),
        (caused_by(WorkerError("x"), MemoryError()), "memory"),
        (MemoryError(), "memory"),
        (StorageError("x"), "storage"),
        (caused_by(StorageError("x"), OSError(errno.ENOSPC, "full")), "disk"),
        (OSError(errno.EDQUOT, "quota"), "disk"),
        (RunError("runs/x: another process is running this search; wait"), "lost"),
        (RunError("runs/x: the job's models changed"), "input"),
        (Failure("self_check", "the scores differ"), "self_check"),
        (EvomergeError("x"), "unknown"),
        (KeyError("x"), "unknown"),
    ],
)
def test_an_error_has_a_cause(error: Exception, cause: Cause) -> None:
    assert cause_of(error) == cause


def test_no_message_of_a_job_names_the_database_of_the_service() -> None:
    ending = ending_of(NoAccess("postgresql://db.example/evomerge: no access"))
    assert (ending.cause, "db.example" in str(ending.message)) == ("storage", False)


@pytest.fixture
def job(database: Database, project: Project) -> Job:
    queued(database, project.id)
    claimed = claim(database, HERE, Limits())
    assert claimed is not None
    begun = states.begin(database, claimed.id, claimed.claim, HERE)
    assert begun is not None
    return begun


@pytest.fixture
def settings(tmp_path: Path) -> ServiceSettings:
    return settings_in(tmp_path, data=tmp_path)


class Interrupted:
    """Waits for the interrupt of a reporter."""

    def __init__(self) -> None:
        self._received = threading.Event()

    def __call__(self) -> None:
        self._received.set()

    def wait(self) -> None:
        assert self._received.wait(120)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter_module, "LOOK_S", 0.05)
    monkeypatch.setattr(reporter_module, "FLUSH_S", 0.02)


def reporter_of(
    database: Database, settings: ServiceSettings, job: Job
) -> tuple[Reporter, Interrupted]:
    interrupted = Interrupted()
    return Reporter(database, settings, job, interrupt=interrupted), interrupted


@EMBEDDED
def test_a_wish_interrupts_the_job(database: Database, settings: ServiceSettings, job: Job) -> None:
    reporter, interrupted = reporter_of(database, settings, job)
    reporter.start()
    moves.wish(database, job.id, "pause", settings=settings, who=ADMIN)
    interrupted.wait()
    assert reporter.stop == Ending(outcome="interrupted")
    reporter.close(reporter.stop)
    assert jobs.get(database, job.id).state == "paused"


@EMBEDDED
def test_a_job_that_was_taken_away_is_interrupted_and_writes_nothing(
    database: Database, settings: ServiceSettings, job: Job
) -> None:
    reporter, interrupted = reporter_of(database, settings, job)
    reporter.start()
    states.lose(database, job.id, job.claim, "taken away", backoff_s=0.0)
    interrupted.wait()
    assert reporter.fenced
    reporter.tell(NewEvent(name="note", body={}))
    before = jobs.get(database, job.id)
    reporter.close(Ending(outcome="succeeded"))
    assert jobs.get(database, job.id) == before


@EMBEDDED
@pytest.mark.parametrize(
    ("short", "cause"),
    [({"least_disk_bytes": 2**62}, "disk"), ({"least_memory_bytes": 2**62}, "memory")],
)
def test_a_job_is_stopped_where_room_runs_out_and_waits(
    database: Database, settings: ServiceSettings, job: Job, short: dict[str, int], cause: Cause
) -> None:
    full = replace(settings, **short, backoff_s=60.0)  # type: ignore[arg-type]
    reporter, interrupted = reporter_of(database, full, job)
    reporter.start()
    interrupted.wait()
    assert reporter.stop is not None
    reporter.close(reporter.stop)
    waits = jobs.get(database, job.id)
    assert (waits.state, waits.cause) == ("queued", cause)
    assert waits.not_before is not None
    assert "must be; make room" in (waits.message or "")


@EMBEDDED
def test_a_heartbeat_is_renewed_with_the_time_used(
    database: Database, settings: ServiceSettings, job: Job
) -> None:
    quick = replace(settings, lease_s=0.2)
    reporter, _ = reporter_of(database, quick, job)
    reporter.start()
    seen = threading.Event()
    while not seen.wait(0.02):
        found = jobs.get(database, job.id)
        assert job.heartbeat_at is not None
        assert found.heartbeat_at is not None
        if found.used_s > 0.0 and found.heartbeat_at > job.heartbeat_at:
            break
    reporter.close(Ending(outcome="succeeded"))


@pytest.mark.parametrize("kind", ["postgres"], indirect=True)
def test_a_database_that_is_away_for_less_than_the_lease_loses_nothing(
    database: Database, settings: ServiceSettings, job: Job, postgres: Server
) -> None:
    reporter, _ = reporter_of(database, settings, job)
    reporter.start()
    reporter.tell(NewEvent(name="note", body={"text": "before"}))
    postgres.stop()
    reporter.tell(NewEvent(name="note", body={"text": "meanwhile"}))
    ends = threading.Thread(target=reporter.close, args=[Ending(outcome="succeeded")])
    ends.start()
    postgres.start()
    ends.join(120)
    assert not ends.is_alive()
    assert jobs.get(database, job.id).state == "succeeded"
    kept = [body["text"] for _, body in events.bodies(database, job.id, ["note"])]
    assert kept == ["before", "meanwhile"]


@pytest.mark.parametrize("kind", ["postgres"], indirect=True)
def test_a_runner_that_cannot_say_that_it_lives_stops_itself(
    database: Database,
    settings: ServiceSettings,
    job: Job,
    postgres: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(reporter_module, "LOOK_S", 0.1)
    reporter, interrupted = reporter_of(database, replace(settings, lease_s=0.5), job)
    postgres.stop()
    try:
        reporter.start()
        interrupted.wait()
    finally:
        postgres.start()
    # The log is shown to all who see the job; where the database is concerns the operator alone.
    said = "not reported: the service's database gives no access; the server's log says why\n"
    assert capsys.readouterr().err == said
    assert reporter.stop is not None
    assert reporter.stop.cause == "storage"
    reporter.close(reporter.stop)
    assert jobs.get(database, job.id).state == "queued"


@EMBEDDED
def test_orders_that_were_cut_short_or_are_late_run_nothing(
    database: Database, settings: ServiceSettings, job: Job
) -> None:
    told = orders(settings, database, job)
    assert json.loads(told)["claim"] == job.claim
    assert run({}, io.StringIO(told[:-1])) == 1
    assert run({}, io.StringIO("")) == 1
    with database.read() as session:
        assert session.execute(text("select state from job")).scalar() == "running"


def test_settings_reach_a_runner_as_they_are(tmp_path: Path) -> None:
    settings = settings_in(
        tmp_path, hub_organisations=("a", "b"), limits=Limits(hours=2.0), tls_key=tmp_path / "key"
    )
    sent = json.loads(json.dumps(settings.to_json()))
    assert ServiceSettings.from_json(sent) == settings


def begun(database: Database) -> Job:
    claimed = claim(database, HERE, Limits())
    assert claimed is not None
    job = states.begin(database, claimed.id, claimed.claim, HERE)
    assert job is not None
    return job


def runs_out(database: Database, settings: ServiceSettings, job: Job) -> Job:
    """The job after an attempt that runs until its time is over."""
    reporter, interrupted = reporter_of(database, settings, job)
    reporter.start()
    interrupted.wait()
    assert reporter.stop is not None
    reporter.close(reporter.stop)
    return jobs.get(database, job.id)


@EMBEDDED
def test_the_time_of_a_job_is_for_all_attempts_and_a_person_gives_it_anew(
    database: Database, settings: ServiceSettings, project: Project
) -> None:
    queued(database, project.id, max_duration_s=1.0)
    job = begun(database)
    ending = Ending(outcome="failed", cause="worker", used_s=50.0)
    states.finish(database, job.id, job.claim, ending, backoff_s=0.0)
    again = runs_out(database, settings, begun(database))  # it had no time left
    assert (again.state, again.cause) == ("failed", "max_duration")
    assert again.used_s > 50.0
    moves.retry(database, job.id, who=ADMIN)
    retried = runs_out(database, settings, begun(database))
    assert retried.cause == "max_duration"
    assert retried.used_s > again.used_s + 1.0
    moves.wish(database, job.id, "run", settings=settings, who=ADMIN)
    resumed = begun(database)
    states.lose(database, job.id, resumed.claim, "killed", backoff_s=0.0)
    reporter, _ = reporter_of(database, settings, begun(database))
    assert reporter.launch_s < 1.0
    given = [entry.detail for entry in audit.find(database, what=job.id).items[:2]]
    assert given == [
        {"max_duration_s": 1.0, "used_before_s": round(used, 3)}
        for used in (retried.used_s, again.used_s)
    ]
