"""Searches of the service in trackers: one run over all attempts, and none ends for a tracker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import evomerge
from evomerge import errors
from evomerge.grid import launch
from evomerge.search import run
from evomerge.service.database.engine import Database
from evomerge.service.queue import moves
from evomerge.service.queue.states import Ending
from evomerge.service.runner.work import WORK
from evomerge.service.store.events import NewEvent
from evomerge.service.store.people import Project
from evomerge.track import Point, TrackedRun, Tracker, TrackerKind, registry
from tests.grid.grids import HashingPool, grid_document
from tests.grid.grids import write_models as write_grid_models
from tests.grid.grids import write_tasks as write_grid_tasks
from tests.grid.test_run import EVOLVED
from tests.search.jobs import LightPool, job_document, write_models
from tests.service.jobs import ADMIN
from tests.service.runner.in_process import Service
from tests.service.runner.killing import kill_settings
from tests.track.logs import steps, tensorboard_rows

SECRET = "0123456789abcdef0123456789abcdef01234567"


class Failing(Tracker):
    """Fails at one step, with a secret in its words; keeps what it gets until then."""

    where = "make"
    made: list[Failing]

    def __init__(self, project: str | None = None, account: str | None = None) -> None:
        self.options = {"project": project, "account": account}
        self.runs: list[TrackedRun] = []
        Failing.made.append(self)
        self._fail("make")

    def open(self, run: TrackedRun) -> str:
        self.runs.append(run)
        self._fail("open")
        return "run-1"

    def log(self, point: Point) -> None:
        self._fail("log")

    def close(self, *, ended: bool) -> None:
        self._fail("close")

    def _fail(self, where: str) -> None:
        if self.where == where:
            raise OSError(f"no network: https://me:{SECRET[:12]}@tracker.example, key {SECRET}")
        if self.where == f"exit {where}":
            raise SystemExit(1)


@pytest.fixture
def kind() -> str:
    return "sqlite"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture
def service(
    database: Database,
    project: Project,
    tmp_path: Path,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Service:
    monkeypatch.setattr(run, "open_job_pool", lambda *given, **named: LightPool())
    Failing.made = []
    kind = TrackerKind(name="failing", make=Failing, names=("project",))
    monkeypatch.setitem(registry.BUILT_IN, "failing", kind)
    settings = replace(
        kill_settings(tmp_path, models),
        trackers={"tensorboard": {}, "failing": {"account": "ours"}},
    )
    return Service(database=database, settings=settings, project=project.id)


def stopped(service: Service, job: Any, *, after: str) -> None:
    """An attempt that is interrupted at its first event of this name."""

    def tell(event: NewEvent) -> None:
        service.told.append(event)
        if event.name == after:
            raise KeyboardInterrupt

    attempt = replace(service.attempt(job), tell=tell)
    with pytest.raises(KeyboardInterrupt):
        WORK[job.kind](attempt)
    service.end(attempt, Ending(outcome="interrupted"))


def test_a_search_is_one_run_over_attempts_and_a_larger_budget(
    service: Service, models: Path, tmp_path: Path
) -> None:
    boards = tmp_path / "boards"
    service.settings = replace(service.settings, trackers={"tensorboard": {"dir": str(boards)}})
    track = {"tensorboard": {}}
    job = service.submit("search", job_document(models), track=track)
    stopped(service, job, after="generation_done")
    service.run(job)
    changes = {"budget.candidates": 20}
    moves.wish(
        service.database, job.id, "run", settings=service.settings, who=ADMIN, changes=changes
    )
    service.run(job)
    other = service.submit("search", job_document(models), track=track)  # of the same name
    service.run(other)
    for each, candidates in ((job, 20), (other, 12)):
        rows = tensorboard_rows(boards / f"sums-{each.id}")
        assert steps(rows, "candidate/number") == [*range(1, candidates + 1)]
        found = evomerge.open_run(service.settings.run_dir(each.id))
        texts = {key: value for row in rows for key, value in row.items()}
        assert texts["outcome/headline/text_summary"] == found.headline
    assert sorted(path.name for path in boards.iterdir()) == sorted(
        f"sums-{each.id}" for each in (job, other)
    )


def test_the_operators_options_are_added_to_the_owners(service: Service, models: Path) -> None:
    track = {"failing": {"project": "mine"}}
    job = service.submit("search", job_document(models), track=track)
    service.run(job)
    [made] = Failing.made
    assert made.options == {"project": "mine", "account": "ours"}


@pytest.mark.parametrize("where", ["make", "exit make", "log"])
def test_a_tracker_that_fails_ends_no_search_is_said_once_and_tells_no_secret(
    service: Service,
    models: Path,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Failing, "where", where)
    monkeypatch.setenv("FAILING_API_KEY", SECRET)
    errors.environment_secrets.cache_clear()
    job = service.submit("search", job_document(models), track={"failing": {}, "tensorboard": {}})
    try:
        assert service.run(job)["headline"]
    finally:
        errors.environment_secrets.cache_clear()
    printed = capsys.readouterr()
    [line] = [line for line in printed.out.splitlines() if "--track" in line]
    notes = [event.body["text"] for event in service.told if event.name == "note"]
    assert [note for note in notes if "--track" in note] == [line]
    assert line.startswith("note: --track failing ")
    assert line.endswith("; the search goes on without it")
    for text in (printed.out, printed.err, *notes):
        assert SECRET[:12] not in text
    rows = tensorboard_rows(service.settings.run_dir(job.id) / "tensorboard")
    assert steps(rows, "candidate/number") == [*range(1, 13)]  # the other one goes on


def test_a_tracker_that_is_no_longer_allowed_or_installed_is_left_out_and_said(
    service: Service,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = service.submit("search", job_document(models), track={"failing": {}, "tensorboard": {}})
    service.settings = replace(service.settings, trackers={"tensorboard": {}})
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None)
    assert service.run(job)["headline"]
    said = [line for line in capsys.readouterr().out.splitlines() if "goes on without" in line]
    assert len(said) == 2
    assert said[0].startswith("note: track: failing: not a tracker of this service")
    assert said[1].startswith("note: track: tensorboard: its package is not installed")
    assert Failing.made == []


def test_the_searches_of_a_grid_are_runs_of_one_group(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "open_workers", lambda *given: HashingPool())
    folder = tmp_path / "grid"
    write_grid_models(folder)
    write_grid_tasks(folder / "tasks")
    boards = tmp_path / "boards"
    service.settings = replace(
        service.settings,
        source_folders=(folder,),
        task_folders=(folder / "tasks",),
        trackers={"tensorboard": {"dir": str(boards)}},
    )
    changes: dict[str, Any] = {"methods": ["linear", EVOLVED], "experts": {"sizes": [2]}}
    document: Mapping[str, Any] = grid_document(folder, **changes)
    job = service.submit("grid", document, track={"tensorboard": {}})
    service.run(job)
    [group] = boards.iterdir()
    assert group.name == f"{document['name']}-{job.id}"
    searches = service.settings.run_dir(job.id) / "searches"
    names = sorted(path.name for path in searches.iterdir())
    assert names
    assert sorted(path.name for path in group.iterdir()) == names
    for name in names:
        found = evomerge.open_run(searches / name)
        rows = tensorboard_rows(group / name)
        assert steps(rows, "candidate/number") == [*range(1, found.candidates + 1)]
