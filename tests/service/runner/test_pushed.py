"""Exports that the service pushes to a stand-in of the hub: whose repositories, and kills."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

import evomerge
from evomerge.errors import InputError
from evomerge.search import run
from evomerge.service.database.engine import Database
from evomerge.service.queue import admission
from evomerge.service.queue.states import Ending
from evomerge.service.runner.attempt import Failure, ending_of
from evomerge.service.runner.work import WORK
from evomerge.service.settings import ServiceSettings
from evomerge.service.store import audit, jobs
from evomerge.service.store.job import Job
from evomerge.service.store.people import Project, make_project
from evomerge.service.store.refusals import Refusal
from tests.export.hub import TOKEN, Hub, serving
from tests.search.jobs import LightPool, job_document, write_models
from tests.service.jobs import ADMIN
from tests.service.runner.in_process import Service
from tests.service.runner.killing import kill_settings

REPO = "acme/sums"


@pytest.fixture
def kind() -> str:
    return "sqlite"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub()
    with serving(made) as url:
        # Both are read from the environment when the library is imported.
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield made


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
    hub: Hub,
) -> Service:
    settings = replace(kill_settings(tmp_path, models), push_organisations=("acme",))
    return Service(database=database, settings=settings, project=project.id)


@pytest.fixture(scope="module")
def record(models: Path) -> Path:
    """The run folder of a search."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "open_job_pool", lambda *given, **named: LightPool())
        evomerge.search(request_of(models), models / "run")
    return models / "run"


def request_of(models: Path) -> dict[str, Any]:
    return job_document(models, budget={"candidates": 4})


def finished(service: Service, models: Path, record: Path) -> Job:
    """A search of the service that has ended with this record."""
    job = service.submit("search", request_of(models))
    shutil.copytree(record, service.settings.run_dir(job.id))
    service.end(service.attempt(job), Ending(outcome="succeeded"))
    return job


@pytest.fixture
def searched(service: Service, models: Path, record: Path) -> Job:
    return finished(service, models, record)


def export(service: Service, search: Job, **wanted: Any) -> Job:
    return service.submit("export", {"push": REPO, **wanted}, parent=search.id)


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def failed(service: Service, job: Job) -> Ending:
    """How an attempt ended that its work did not bring to its end; kept as a runner keeps it."""
    attempt = service.attempt(job)
    with pytest.raises((Failure, InputError, KeyboardInterrupt)) as caught:
        WORK["export"](attempt)
    ending = ending_of(caught.value)
    service.end(attempt, ending)
    assert TOKEN not in str(ending.message)
    return ending


def test_an_export_is_pushed_and_its_result_has_the_link(
    service: Service, searched: Job, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    job = export(service, searched, push="Acme/sums")
    result = service.run(job)
    assert result["url"] == f"{hub.url}/{REPO}"
    assert f"uploaded: {hub.url}/{REPO}" in result["lines"]
    assert hub.private == {REPO: True}
    assert hub.files[REPO] == files_of(service.settings.export_dir(job.id))
    printed = capsys.readouterr()
    assert f"uploading to {REPO}" in printed.out
    assert TOKEN not in printed.out + printed.err + str(result)
    [act] = [
        act for act in audit.find(service.database).items if act.detail.get("kind") == "export"
    ]
    assert act.detail["push"] == "acme/sums"
    # The same project may push to what it made; a copy keeps where to.
    copy, _ = admission.clone(service.database, job.id, service.settings, who=ADMIN)
    assert service.run(copy)["url"] == result["url"]
    assert service.run(export(service, searched, push=None))["url"] is None


def test_a_repository_that_was_there_is_never_written_to(
    service: Service, searched: Job, hub: Hub
) -> None:
    hub.private[REPO], hub.files[REPO] = True, {"model.safetensors": b"of someone else"}
    job = export(service, searched)
    ending = failed(service, job)
    assert (ending.cause, ending.message) == (
        "input",
        f"--push {REPO}: is there already; give another name",
    )
    assert not service.settings.export_dir(job.id).exists()
    assert hub.files == {REPO: {"model.safetensors": b"of someone else"}}


def test_a_repository_of_another_project_is_not_written_to(
    service: Service, searched: Job, hub: Hub, models: Path, record: Path
) -> None:
    service.run(export(service, searched))
    before = dict(hub.files[REPO])
    other = make_project(service.database, "other", who=ADMIN)
    theirs = Service(database=service.database, settings=service.settings, project=other.id)
    search = finished(theirs, models, record)
    assert "is there already" in str(failed(theirs, export(theirs, search)).message)
    assert hub.files[REPO] == before


def test_a_repository_that_someone_makes_meanwhile_is_not_written_to(
    service: Service, searched: Job, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = HfApi.create_repo

    def late(*given: Any, **named: Any) -> Any:
        hub.private[REPO], hub.files[REPO] = True, {}
        return create(*given, **named)

    monkeypatch.setattr(HfApi, "create_repo", late)
    job = export(service, searched)
    ending = failed(service, job)
    assert ending.cause == "input"
    assert hub.files[REPO] == {}
    again = export(service, searched)
    assert "is there already" in str(failed(service, again).message)


@pytest.mark.parametrize("step", ["create_repo", "upload_folder"])
def test_an_attempt_after_a_kill_goes_on_in_its_own_repository(
    service: Service, searched: Job, hub: Hub, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """As if the process had been killed right after a step was done at the hub."""
    job = export(service, searched)
    done = getattr(HfApi, step)

    def killed(*given: Any, **named: Any) -> Any:
        done(*given, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(HfApi, step, killed)
        failed(service, job)
    assert REPO in hub.private
    assert service.run(job)["url"] == f"{hub.url}/{REPO}"
    assert hub.files[REPO] == files_of(service.settings.export_dir(job.id))


def test_what_may_pass_is_tried_again_and_a_refusal_is_not(
    service: Service, searched: Job, hub: Hub
) -> None:
    hub.refuses = "/api/repos/create"
    job = export(service, searched)
    hub.refusal = 503
    ending = failed(service, job)
    assert ending.cause == "hub"
    assert str(ending.message).startswith("the hub did not take it (")
    assert jobs.get(service.database, job.id).state == "queued"
    hub.refusal = 403
    ending = failed(service, job)
    assert ending.cause == "input"
    assert str(ending.message).startswith(f"push: {REPO}: not uploaded (")
    assert jobs.get(service.database, job.id).state == "failed"
    assert str(service.settings.data) not in str(ending.message)


def test_a_hub_that_is_away_is_met_before_anything_is_written(
    service: Service, searched: Job, hub: Hub
) -> None:
    hub.refuses, hub.refusal = f"/api/models/{REPO}", 502
    job = export(service, searched)
    assert failed(service, job).cause == "hub"
    assert not service.settings.export_dir(job.id).exists()
    hub.refuses = ""
    assert service.run(job)["url"]


def test_nothing_is_pushed_without_the_operators_leave_or_a_token(
    service: Service, searched: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = export(service, searched)
    allowed = service.settings
    service.settings = replace(allowed, push_organisations=())
    with pytest.raises(Refusal, match="--allow-push"):
        export(service, searched)
    with pytest.raises(Refusal, match="--allow-push"):  # it was allowed when it was submitted
        service.attempt(job)
    service.settings = allowed
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(Refusal, match=r"no token of the hub on this server; .* set HF_TOKEN"):
        export(service, searched)


def test_an_operator_may_allow_public_repositories(
    service: Service, searched: Job, hub: Hub
) -> None:
    service.settings = replace(service.settings, public_push=True)
    service.run(export(service, searched, public=True))
    assert hub.private == {REPO: False}


def test_settings_come_whole_to_a_process_of_a_job(tmp_path: Path) -> None:
    settings = ServiceSettings(data=tmp_path, push_organisations=("acme",), public_push=True)
    read = ServiceSettings.from_json(settings.to_json())
    assert (read.push_organisations, read.public_push) == (("acme",), True)
