"""The work of every kind of job, for real on tiny models, in this process."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import InputError
from evomerge.service.client import results
from evomerge.service.database.engine import Database
from evomerge.service.queue import moves
from evomerge.service.queue.states import Ending
from evomerge.service.runner.work import WORK
from evomerge.service.store import events
from evomerge.service.store.people import Project
from tests.search.jobs import TASKS, job_document, write_models
from tests.service.jobs import ADMIN
from tests.service.runner.in_process import Service
from tests.service.runner.killing import kill_settings

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


def small(models: Path, **changes: Any) -> dict[str, Any]:
    evaluation = {
        "task_folders": [str(TASKS)],
        "items_per_generation": 8,
        "items_for_baselines": 8,
        "finalists": 1,
    }
    return job_document(
        models, **{"evaluation": evaluation, "budget": {"candidates": 4}, **changes}
    )


def sent(result: Any) -> Any:
    """Plain values as they come over the network."""
    return json.loads(json.dumps(result, allow_nan=False))


@pytest.fixture
def service(database: Database, project: Project, tmp_path: Path, models: Path) -> Service:
    settings = kill_settings(tmp_path, models)
    return Service(database=database, settings=settings, project=project.id)


def test_a_search_goes_on_with_a_larger_budget_and_is_exported(
    service: Service, models: Path
) -> None:
    job = service.submit("search", small(models))
    result = service.run(job)
    assert result["headline"]
    names = service.names()
    assert names[0] == "checking"
    assert names[-1] == "finished"
    assert names.count("generation_done") == 1
    before = names.count("candidate_done")
    changes = {"budget.candidates": 8}
    moves.wish(
        service.database, job.id, "run", settings=service.settings, who=ADMIN, changes=changes
    )
    service.run(job)
    kept = events.bodies(service.database, job.id, ["candidate_done", "generation_done"])
    done = [body["candidate"] for name, body in kept if name == "candidate_done"]
    assert len(done) == len(set(done)) > before
    generations = [body["generation"] for name, body in kept if name == "generation_done"]
    assert generations == [1, 2]
    export = service.submit("export", {}, parent=job.id)
    left = service.settings.export_dir(export.id)
    (left / "half").mkdir(parents=True)  # by an attempt that was killed
    made = service.run(export)
    report = results.read_export(sent(made), left)
    assert sent(report.to_json()) == sent(made["report"])
    assert list(report.lines()) == made["lines"]
    files = {file["path"]: file for file in made["files"]}
    assert {"config.json", "model.safetensors"} <= set(files)
    assert not (left / "half").exists()
    for path, file in files.items():
        content = (left / path).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["size_bytes"] == len(content)


def test_other_kinds_give_results_in_plain_values(
    service: Service, models: Path, tmp_path: Path
) -> None:
    text = service.settings.uploads(service.project) / "text.txt"
    text.parent.mkdir(parents=True)
    text.write_text("one and two are three. " * 200)
    job = small(models)
    recipe = {
        "merge_method": "linear",
        "models": [
            {"model": str(models / name), "parameters": {"weight": 0.5}}
            for name in ("first", "second")
        ],
    }
    check = service.run(service.submit("check", {"job": job, "timing": False}))
    assert [task["name"] for task in check["report"]["tasks"]] == ["sums_choice", "sums_said"]
    alone = service.run(service.submit("evaluation", {"job": job, "model": "first"}))
    merged = service.run(service.submit("evaluation", {"job": job, "recipe": recipe}))
    for scored in (alone, merged):
        assert set(scored["scores"]["tasks"]) == {"sums_choice", "sums_said"}
    asked = {"models": ["first"], "text": "text.txt", "sequences": 2, "tokens": 16, "fisher": False}
    calibration = service.submit("calibration", asked)
    statistics = service.run(calibration)
    assert statistics["files"]
    assert statistics["statistics"][0]["computed"]
    assert merged["scores"]["label"] == "recipe"

    check, alone, statistics = map(sent, (check, alone, statistics))
    report = results.read_check(check)
    assert sent(report.to_json()) == check["report"]
    assert report.lines()[0].startswith(f"{job['name']}: a search accepts this job")
    assert sent(results.read_evaluation(alone).to_json()) == alone["scores"]
    (written,) = results.read_calibration(statistics)
    (file,) = statistics["files"]
    assert (str(written.path), written.size_bytes) == (file["path"], file["size_bytes"])
    assert written.line().startswith(f"{file['path']}: inputs of ")


def test_a_grid_tells_its_progress(service: Service, models: Path) -> None:
    request = {
        "name": "methods",
        "models": {"base": "base", "sources": ["first", "second"]},
        "held_in": [
            {"task": "sums_choice", "metric": "acc", "expert": "first"},
            {"task": "sums_said", "metric": "exact_match", "expert": "second"},
        ],
        "methods": ["linear"],
        "evaluation": {"task_folders": [str(TASKS)]},
        "compute": {"device": "cpu"},
    }
    result = service.run(service.submit("grid", request))
    assert result["name"] == "methods"
    assert [row["method"] for row in result["rows"]]
    assert sent(results.read_grid(sent(result)).to_json()) == sent(result)
    assert "work" in service.names()
    assert "progress" in service.names()


def test_what_was_recorded_and_not_told_is_told_when_a_search_goes_on(
    service: Service, models: Path
) -> None:
    """As if the process had been killed after some records, and before their events were kept."""
    job = service.submit("search", small(models, budget={"candidates": 8}))
    attempt = service.attempt(job)
    WORK["search"](attempt)
    whole = list(service.told)
    missing = ("candidate_done", "generation_done")
    service.told = [
        event
        for place, event in enumerate(whole)
        if not (event.name in missing and place % 2) and event.name != "finished"
    ]
    service.end(attempt, Ending(outcome="interrupted"))
    kept = service.run(job)
    assert kept["headline"]
    told = events.bodies(service.database, job.id, missing)
    wanted = [(event.name, dict(event.body)) for event in whole if event.name in missing]

    def in_order(pairs: Any) -> list[str]:
        return sorted(json.dumps(pair, sort_keys=True) for pair in pairs)

    assert in_order(told) == in_order(wanted)
    assert len(events.bodies(service.database, job.id, ["finished"])) == 1


def test_a_search_whose_folder_is_gone_begins_again(service: Service, models: Path) -> None:
    job = service.submit("search", small(models))
    attempt = service.attempt(job)
    first = WORK["search"](attempt)
    service.end(attempt, Ending(outcome="interrupted"))
    shutil.rmtree(service.settings.run_dir(job.id))
    assert service.run(job)["headline"] == first["headline"]


def test_a_task_that_is_missing_is_the_users_to_mend(service: Service, models: Path) -> None:
    objectives = [{"task": "no_such_task", "metric": "acc"}]
    job = service.submit("search", small(models, objectives=objectives))
    with pytest.raises(InputError, match="no_such_task"):
        WORK["search"](service.attempt(job))
    assert not (service.settings.run_dir(job.id) / "job.yaml").exists()
