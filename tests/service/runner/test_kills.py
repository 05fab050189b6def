"""SIGKILL of server, runner or both over real searches: none lost, none twice, each one exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evomerge.service.database.engine import Database
from evomerge.service.store import jobs
from evomerge.service.store.people import Project
from tests.search.jobs import write_models
from tests.service.runner.in_process import Service
from tests.service.runner.killing import (
    check_record,
    end_processes,
    finish_all,
    kill,
    kill_settings,
    submit_search,
)


@pytest.fixture
def _no_runner_is_left(database: Database) -> Iterator[None]:
    yield
    end_processes(database)


@pytest.mark.usefixtures("_no_runner_is_left")
def test_killed_searches_end_as_if_nothing_had_happened(
    database: Database, project: Project, tmp_path: Path, faults: bool, kind: str
) -> None:
    if kind == "postgres" and not faults:
        pytest.skip("the same as on SQLite but for claims and moves, which have tests on both")
    models = tmp_path / "models"
    write_models(models)
    settings = kill_settings(tmp_path, models)
    undisturbed = Service(database=database, settings=settings, project=project.id)
    reference = submit_search(database, settings, project.id)
    undisturbed.run(reference)
    reference = jobs.get(database, reference.id)
    kills, longest_s, unfinished = (100, 20.0, 2) if faults else (2, 6.0, 1)
    killed = kill(
        database,
        settings,
        project.id,
        kills=kills,
        longest_s=longest_s,
        seed=len(kind),
        unfinished=unfinished,
    )
    ended = finish_all(database, settings)
    print(
        f"{kind}: {killed.counts} over {len(ended)} jobs, {sum(j.attempts for j in ended)} attempts"
    )
    assert killed.total == kills
    for job in ended:
        assert job.state == "succeeded", (job.id, job.cause, job.message)
        check_record(database, settings, job, reference)
