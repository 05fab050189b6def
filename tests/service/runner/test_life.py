"""The log of a job's life: each step once, whoever made it, and what Python writes by itself."""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.service.database.engine import Database
from evomerge.service.http import logs
from evomerge.service.http.server import log_step
from evomerge.service.queue import moves, states
from evomerge.service.queue.claim import claim
from evomerge.service.queue.states import Ending
from evomerge.service.queue.steps import Step
from evomerge.service.runner.identity import own_identity
from evomerge.service.runner.life import Life
from evomerge.service.runner.supervisor import Supervisor
from evomerge.service.settings import Limits
from evomerge.service.store import jobs
from evomerge.service.store.job import Job
from evomerge.service.store.people import Project
from tests.service.jobs import ADMIN, HERE, queued, settings_in

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)


@pytest.fixture
def told(database: Database) -> Iterator[list[Step]]:
    steps: list[Step] = []
    database.listeners.append(steps.append)
    yield steps
    database.listeners.clear()


def begun(database: Database, life: Life) -> Job:
    claimed = claim(database, HERE, Limits())
    assert claimed is not None
    life.follow(claimed)
    job = states.begin(database, claimed.id, claimed.claim, HERE)
    assert job is not None
    return job


def test_each_step_is_told_once(
    database: Database, project: Project, told: list[Step], tmp_path: Path
) -> None:
    life = Life(database, told.append)
    queued(database, project.id)
    job = begun(database, life)
    life.look()
    life.look()
    failed = Ending(outcome="failed", cause="worker", message="/a/secret/path: a worker died")
    states.finish(database, job.id, job.claim, failed, backoff_s=0.0)
    job = begun(database, life)  # before the end of the first was looked at
    states.lose(database, job.id, job.claim, "its process was killed", backoff_s=0.0)
    life.look()
    job = begun(database, life)
    ending = Ending(outcome="failed", cause="input", message="/a/secret/path: no such file")
    states.finish(database, job.id, job.claim, ending, backoff_s=0.0)
    life.look()
    moves.retry(database, job.id, who=ADMIN)
    moves.wish(database, job.id, "cancel", settings=settings_in(tmp_path), who=ADMIN)
    life.look()
    first, second, third = (
        [(step.what, step.attempt) for step in told if step.attempt == number]
        for number in (1, 2, 3)
    )
    assert told[0].what == "queued"
    assert first == [("claimed", 1), ("begun", 1), ("retried", 1)]
    assert second == [("claimed", 2), ("begun", 2), ("lost", 2)]
    assert [what for what, _ in third] == ["claimed", "begun", "failed", "queued", "cancelled"]
    ended = {step.what: step for step in told if step.seconds is not None}
    assert set(ended) == {"retried", "lost", "failed"}
    assert (ended["failed"].cause, ended["lost"].state) == ("input", "queued")
    assert ended["lost"].why == "its process was killed"
    assert "secret" not in str(told)


def test_what_does_not_happen_is_not_told(
    database: Database, project: Project, told: list[Step]
) -> None:
    job = queued(database, project.id)
    told.clear()

    def fails() -> None:
        with database.write() as session:
            states.move(session, jobs.locked(session, job.id), "cancelled")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert told == []


def test_a_server_follows_what_runs_for_one_that_is_gone(
    database: Database, project: Project
) -> None:
    steps: list[Step] = []
    own = own_identity()
    for server in (own, replace(own, started="1")):
        job = queued(database, project.id)
        claimed = claim(database, server, Limits())
        assert claimed is not None
        states.begin(database, job.id, claimed.claim, HERE)
    life = Life(database, steps.append)
    life.find()
    for each in all_of(database):
        states.finish(database, each.id, each.claim, Ending(outcome="succeeded"), backoff_s=0.0)
    life.look()
    assert [(step.what, step.job) for step in steps] == [("succeeded", job.id)]


def test_what_ended_while_no_server_ran_is_told_once_by_the_first_that_starts(
    database: Database, project: Project
) -> None:
    gone = replace(own_identity(), started="1")
    ended = queued(database, project.id)
    for outcome in ("interrupted", "succeeded"):  # two attempts, and nobody looked
        job = claim(database, gone, Limits())
        assert job is not None
        states.begin(database, job.id, job.claim, HERE)
        states.finish(database, job.id, job.claim, Ending(outcome=outcome), backoff_s=0.0)
    runs = queued(database, project.id)
    job = claim(database, gone, Limits())
    assert job is not None
    states.begin(database, job.id, job.claim, HERE)
    first: list[Step] = []
    second: list[Step] = []
    lives = [Life(database, steps.append) for steps in (first, second)]
    for life in lives:
        life.find()
    assert second == []
    assert [(step.what, step.job, step.attempt) for step in first] == [
        ("retried", ended.id, 1),
        ("succeeded", ended.id, 2),
    ]
    assert all(step.seconds is not None and step.seconds >= 0.0 for step in first)
    # Both follow what still runs, as neither knows of the other.
    states.finish(database, runs.id, job.claim, Ending(outcome="succeeded"), backoff_s=0.0)
    for life in lives:
        life.look()
        life.look()
    told = [(step.what, step.job) for step in (*first[2:], *second)]
    assert told == [("succeeded", runs.id)]


def test_a_lost_job_is_told_of_by_one_server(database: Database, project: Project) -> None:
    first: list[Step] = []
    second: list[Step] = []
    lives = [Life(database, steps.append) for steps in (first, second)]
    own = own_identity()
    queued(database, project.id)
    for server in (own, replace(own, started="1")):
        job = claim(database, server, Limits())
        assert job is not None
        for life in lives:
            life.follow(job)
        states.lose(database, job.id, job.claim, "its process was killed", backoff_s=0.0)
    for life in lives:
        life.look()
    told = [(step.what, step.attempt) for step in (*first, *second)]
    assert told == [("lost", 1), ("lost", 2)]


def all_of(database: Database) -> list[Job]:
    return list(jobs.find(database, jobs.JobFilter()).items)


def test_a_purge_is_told(database: Database, project: Project, tmp_path: Path) -> None:
    steps: list[Step] = []
    job = queued(database, project.id)
    settings = replace(settings_in(tmp_path, data=tmp_path), purge_after_s=-1.0, slots=0)
    jobs.soft_delete(database, job.id, who=ADMIN)
    Supervisor(database, settings, told=steps.append).turn()
    assert [(step.what, step.job) for step in steps] == [("purged", job.id)]


@pytest.mark.filterwarnings("default")
def test_lines_of_python_itself_are_json(
    database: Database, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise ValueError("of a thread")

    monkeypatch.setattr(logging.getLogger(), "handlers", [logs.LibraryLog()])
    hooks = threading.excepthook, sys.unraisablehook
    with logs.taking_strays():
        thread = threading.Thread(target=fails, name="one")
        thread.start()
        thread.join()
        warnings.warn("of a library", UserWarning, stacklevel=1)
        logging.getLogger("a.library").warning("%d is no number", "one")
    assert (threading.excepthook, sys.unraisablehook) == hooks
    log_step(Step(what="lost", job="j", project="p", kind="search", state="failed", attempt=2))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    failed, warned, mistaken, lost = lines
    assert mistaken["text"] == "%d is no number ('one',)"
    assert (failed["event"], failed["thread"], failed["error"]) == (
        "thread_failed",
        "one",
        "ValueError: of a thread",
    )
    assert (warned["event"], warned["logger"]) == ("library", "py.warnings")
    assert "of a library" in warned["text"]
    assert (lost["event"], lost["level"], lost["attempt"]) == ("job_lost", "warning", 2)
    assert "cause" not in lost
