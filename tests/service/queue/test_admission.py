"""What a new job may be: from which folders and organisations, how large, and what it holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import InputError, JobError
from evomerge.service.database.engine import Database
from evomerge.service.database.tables import JobRow
from evomerge.service.queue import states
from evomerge.service.queue.admission import (
    admit,
    admit_and_submit,
    check_changes,
    check_request,
    clone,
    edit,
)
from evomerge.service.queue.claim import claim
from evomerge.service.queue.states import Ending
from evomerge.service.settings import Limits, ServiceSettings
from evomerge.service.store import jobs
from evomerge.service.store.job import Job, NewJob
from evomerge.service.store.people import Project, make_project
from evomerge.service.store.refusals import Conflict, NotFound, OverLimit, Refusal
from tests.service.jobs import ADMIN, HERE, new_job, search_request, settings_in

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)

GRID = {
    "name": "methods",
    "models": {"base": "base", "sources": ["first", "second"]},
    "held_in": [
        {"task": "sums_choice", "metric": "acc", "expert": "first"},
        {"task": "sums_said", "metric": "exact_match", "expert": "second"},
    ],
    "methods": ["task_arithmetic", "ties"],
}


@pytest.fixture
def settings(tmp_path: Path) -> ServiceSettings:
    folder = tmp_path / "tasks" / "own"
    folder.mkdir(parents=True)
    return settings_in(tmp_path, task_folders=(tmp_path / "tasks",), hub_organisations=("acme",))


Admit = Callable[..., Any]


@pytest.fixture
def admitted(database: Database, project: Project, settings: ServiceSettings) -> Admit:
    """Admits a search with these changes of its request; the request that is kept."""

    def admit_one(settings: ServiceSettings = settings, **changes: Any) -> dict[str, Any]:
        job = new_job(project.id, request=search_request(**changes))
        return dict(admit(database, job, settings).request)

    return admit_one


def refused(act: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        act()
    assert "\n" not in str(caught.value)
    assert caught.value.mend
    return caught.value


def finished(database: Database, job: Job) -> Job:
    claimed = claim(database, HERE, Limits())
    assert claimed is not None
    assert claimed.id == job.id
    states.begin(database, job.id, claimed.claim, HERE)
    return states.finish(
        database, job.id, claimed.claim, Ending(outcome="succeeded"), backoff_s=0.0
    )


def test_a_request_is_kept_complete_with_resolved_folders(
    admitted: Admit, settings: ServiceSettings, tmp_path: Path
) -> None:
    (tmp_path / "models" / "latest").symlink_to("second")
    request = admitted(
        models={"base": "base", "sources": [str(tmp_path / "models/first"), "latest"]},
        evaluation={"task_folders": ["own"]},
    )
    models = Path(tmp_path / "models").resolve()
    assert request["models"]["base"] == str(models / "base")
    assert request["models"]["sources"] == [str(models / "first"), str(models / "second")]
    assert request["evaluation"]["task_folders"] == [str((tmp_path / "tasks/own").resolve())]
    assert request["optimizer"]["algorithm"] == "auto"


@pytest.mark.parametrize(
    "reference",
    [
        "acme/model",
        "acme/model@v1.0",
        "Acme/Model",
        "base+first",
        "acme/model+first",
    ],
)
def test_models_of_allowed_places_may_be_used(admitted: Admit, reference: str) -> None:
    admitted(models={"base": "base", "sources": [reference]})


@pytest.mark.parametrize(
    "reference",
    [
        "/etc",
        "../outside",
        "base/../../outside",
        "link",
        "first/../link",
        "~",
        "~/model",
        "missing",
        "other/model",
        "acme/../../etc",
        "acme/..",
        "base+/etc",
        "/etc+base",
        "linked",
        "file",
        ".",
        "job:j",
        "job:jaaaaaaaaaaaaaaa",
        "https://example.com/model",
        "base\x85",
        "x" * 5000,
    ],
)
@pytest.mark.parametrize("field", ["models.base", "models.sources.0"])
def test_models_of_other_places_are_refused_with_field_value_and_mend(
    admitted: Admit, tmp_path: Path, reference: str, field: str
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "models" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "models" / "file").write_text("")
    linked = tmp_path / "models" / "linked"
    linked.mkdir()
    (linked / "config.json").symlink_to("/etc/passwd")
    models = {"base": "base", "sources": ["first"]}
    models = (
        {**models, "base": reference}
        if field == "models.base"
        else {**models, "sources": [reference]}
    )
    with pytest.raises(InputError) as caught:
        admitted(models=models)
    if isinstance(caught.value, Refusal):
        assert caught.value.field == field
        assert caught.value.value == reference[:300]
        assert caught.value.mend
    else:
        assert isinstance(caught.value, JobError)
    assert "passwd" not in str(caught.value)


def test_any_organisation_may_be_allowed_and_none(
    admitted: Admit, settings: ServiceSettings
) -> None:
    models = {"base": "base", "sources": ["any/model"]}
    admitted(replace(settings, hub_organisations=("*",)), models=models)
    nowhere = replace(settings, hub_organisations=(), source_folders=())
    assert "ask the operator" in refused(lambda: admitted(nowhere, models=models)).mend


@pytest.mark.parametrize("folder", ["/etc", "..", "../models", "gone", "link", "~"])
def test_task_folders_of_other_places_are_refused(
    admitted: Admit, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "tasks" / "link").symlink_to("/etc")
    refusal = refused(lambda: admitted(evaluation={"task_folders": [folder]}))
    assert (refusal.field, refusal.value) == ("evaluation.task_folders.0", folder)


def test_tasks_that_the_service_made_may_be_used_in_their_project_alone(
    admitted: Admit, settings: ServiceSettings, project: Project
) -> None:
    for owner, name in ((project.id, "mine"), ("pzzzzzzzzzzzzzzz", "theirs")):
        (settings.made_tasks(owner) / name).mkdir(parents=True)
    admitted(evaluation={"task_folders": ["mine"]})
    theirs = settings.made_tasks("pzzzzzzzzzzzzzzz") / "theirs"
    refused(lambda: admitted(evaluation={"task_folders": [str(theirs)]}))


def test_uploaded_task_files_are_code_that_an_operator_may_trust(
    admitted: Admit, settings: ServiceSettings, project: Project
) -> None:
    (settings.uploads(project.id) / "own").mkdir(parents=True)
    named = {"task_folders": [str(settings.uploads(project.id) / "own")]}
    refused(lambda: admitted(evaluation=named))
    trusting = replace(settings, trust_task_code=True)
    assert admitted(trusting, evaluation=named)["evaluation"]["task_folders"]


@pytest.mark.parametrize("task", ["/etc/passwd", "../task", "~/task", ".hidden", "a/../../b"])
def test_a_task_is_no_path(admitted: Admit, task: str) -> None:
    objectives = [{"task": task, "metric": "acc"}]
    assert refused(lambda: admitted(objectives=objectives)).value == task
    refused(lambda: admitted(report=[task]))
    refused(lambda: admitted(constraints=[{"task": task, "metric": "acc", "at_least": 0.1}]))
    group = [{"task": "group", "metric": "acc", "members": [task]}]
    refused(lambda: admitted(objectives=group))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"storage": "postgresql://somewhere/else"}, "storage"),
        ({"models": {"base": "base", "sources": ["first"], "trust_remote_code": True}},
         "models.trust_remote_code"),
        ({"models": {"base": "base", "sources": ["first"], "statistics": "/etc"}},
         "models.statistics"),
        ({"search_space": "/etc/passwd"}, "search_space"),
        ({"search_space": "space.yaml"}, "search_space"),
        ({"search_space": {"method": "linear", "start_from": "/etc/passwd"}},
         "search_space.start_from"),
        ({"search_space": {"start_from": {"models": [{"model": "/etc"}]}}},
         "search_space.start_from.models.0.model"),
        ({"search_space": {"start_from": {"tokenizer": {"tokens": {"<x>": {"source": "../m"}}}}}},
         "search_space.start_from.tokenizer.tokens.<x>.source"),
        ({"search_space": None, "stages": [{"name": "a", "search_space": "./x"}]},
         "stages.0.search_space"),
    ],
)  # fmt: skip
def test_what_names_a_place_or_runs_code_is_refused_where_it_stands(
    admitted: Admit, changes: dict[str, Any], field: str
) -> None:
    assert refused(lambda: admitted(**changes)).field == field


def test_an_operator_may_trust_the_code_of_models(
    admitted: Admit, settings: ServiceSettings
) -> None:
    models = {"base": "base", "sources": ["first"], "trust_remote_code": True}
    admitted(replace(settings, trust_model_code=True), models=models)


def test_a_job_that_no_search_takes_is_refused_in_its_own_words(admitted: Admit) -> None:
    with pytest.raises(JobError, match=r"^budgets: unknown key; did you mean budget"):
        admitted(budgets={})
    with pytest.raises(JobError, match=r"^budget\.candidates: 0: "):
        admitted(budget={"candidates": 0})


def test_a_link_that_appears_after_admission_is_found_before_the_attempt(
    database: Database, project: Project, settings: ServiceSettings, tmp_path: Path
) -> None:
    job, _ = admit_and_submit(database, new_job(project.id), settings, who=ADMIN)
    check_request(database, job, settings)
    first = tmp_path / "models" / "first"
    first.rmdir()
    first.symlink_to("/etc")
    assert refused(lambda: check_request(database, job, settings)).field == "models.sources.0"


@pytest.mark.parametrize(
    ("limits", "budget", "field"),
    [
        (Limits(hours=1.0), {"candidates": 5}, "budget.hours"),
        (Limits(hours=1.0), {"hours": 1.5}, "budget.hours"),
        (Limits(items=100), {"items": 101}, "budget.items"),
    ],
)
def test_a_budget_keeps_to_the_limits(
    admitted: Admit, settings: ServiceSettings, limits: Limits, budget: dict[str, Any], field: str
) -> None:
    limited = replace(settings, limits=limits)
    assert refused(lambda: admitted(limited, budget=budget)).field == field
    admitted(limited, budget={"hours": 1.0, "items": 100})


def test_other_limits_of_a_job(
    database: Database, project: Project, settings: ServiceSettings
) -> None:
    limited = replace(settings, limits=Limits(duration_s=60.0, retries=1, jobs_queued=1))
    new = new_job(project.id, retries=1)
    assert admit(database, new, limited).max_duration_s == 60.0
    refused(lambda: admit(database, replace(new, max_duration_s=61.0), limited))
    refused(lambda: admit(database, replace(new, retries=2), limited))
    admit_and_submit(database, new, limited, who=ADMIN)
    with pytest.raises(OverLimit):
        admit_and_submit(database, new, limited, who=ADMIN)


@pytest.mark.parametrize("request_of", [{"a": float("nan")}, {"a": object()}, {"a": "x" * 2**20}])
def test_what_is_no_plain_document_is_refused(
    database: Database, project: Project, settings: ServiceSettings, request_of: dict[str, Any]
) -> None:
    refused(lambda: admit(database, new_job(project.id, request=request_of), settings))


def test_a_deep_document_is_refused(
    database: Database, project: Project, settings: ServiceSettings
) -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(InputError, match="nested more than 64 levels deep"):
        admit(database, new_job(project.id, request=deep), settings)


def test_a_job_of_every_other_kind_is_admitted(
    database: Database, project: Project, settings: ServiceSettings, tmp_path: Path
) -> None:
    text = settings.uploads(project.id) / "text.txt"
    text.parent.mkdir(parents=True)
    text.write_text("text")
    job = search_request()
    recipe = {
        "merge_method": "linear",
        "models": [{"model": "acme/a", "parameters": {"weight": 1}}],
    }
    for kind, request, name in (
        ("grid", GRID, "methods"),
        ("check", {"job": job}, "check of sums"),
        ("evaluation", {"job": job, "model": "first"}, "first on sums"),
        ("evaluation", {"job": job, "recipe": recipe}, "a recipe on sums"),
        ("calibration", {"models": ["first"], "text": "text.txt"}, "calibration of 1 model"),
    ):
        admitted = admit(database, new_job(project.id, kind=kind, request=request), settings)
        assert admitted.name == name
        made, _ = admit_and_submit(
            database, new_job(project.id, kind=kind, request=request), settings, who=ADMIN
        )
        again, _ = check_request(database, made, settings)
        assert again == made.request


def test_keys_of_a_recipe_are_no_places_in_the_folder_of_the_server(
    database: Database,
    project: Project,
    settings: ServiceSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("models", "weight"):
        (tmp_path / "here" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")

    def evaluation(model: str, parameters: dict[str, Any]) -> NewJob:
        models = [{"model": model, "parameters": parameters}]
        recipe = {"merge_method": "linear", "models": models}
        request = {"job": search_request(), "recipe": recipe}
        return new_job(project.id, kind="evaluation", request=request)

    admit(database, evaluation("first", {"weight": 1}), settings)
    with pytest.raises(Refusal, match="weight: not a model"):
        admit(database, evaluation("weight", {"weight": 1}), settings)
    with pytest.raises(Refusal, match="/etc: not a model"):
        admit(database, evaluation("first", {"weight": [{"filter": "/etc", "value": 1}]}), settings)


@pytest.mark.parametrize(
    ("kind_of", "request_of", "field"),
    [
        ("check", {"job": search_request(models={"base": "/etc", "sources": ["first"]})},
         "job.models.base"),
        ("evaluation", {"job": search_request(), "model": "/etc"}, "model"),
        ("evaluation", {"job": search_request()}, "model, recipe"),
        ("evaluation", {"job": search_request(), "recipe":
         {"merge_method": "linear", "models": [{"model": "/etc"}]}}, "recipe.models.0.model"),
        ("calibration", {"models": ["first"], "text": "/etc/passwd"}, "text"),
        ("calibration", {"models": ["/etc"], "text": "text.txt"}, "models.0"),
        ("grid", {**GRID, "models": {"base": "/etc", "sources": ["first", "second"]}},
         "models.base"),
        ("grid", {**GRID, "models": {**GRID["models"], "trust_remote_code": True}},
         "models.trust_remote_code"),
        ("calibration", {"models": ["first"], "text": "text.txt", "trust_remote_code": True},
         "trust_remote_code"),
        ("export", {}, "parent"),
        ("export", {"rank": 4}, "parent"),
    ],
)  # fmt: skip
def test_other_kinds_are_checked_too(
    database: Database,
    project: Project,
    settings: ServiceSettings,
    kind_of: str,
    request_of: dict[str, Any],
    field: str,
) -> None:
    job = new_job(project.id, kind=kind_of, request=request_of)
    assert refused(lambda: admit(database, job, settings)).field == field


def test_an_export_is_of_a_search_of_its_project_that_has_begun(
    database: Database, project: Project, settings: ServiceSettings
) -> None:
    search, _ = admit_and_submit(database, new_job(project.id), settings, who=ADMIN)
    export = new_job(project.id, kind="export", request={}, parent=search.id)
    with pytest.raises(Conflict, match="has not begun"):
        admit(database, export, settings)
    finished(database, search)
    made, _ = admit_and_submit(database, export, settings, who=ADMIN)
    with pytest.raises(Refusal, match="of kind export"):
        admit(database, replace(export, parent=made.id), settings)
    other = make_project(database, "other", who=ADMIN)
    with pytest.raises(NotFound):
        admit(database, replace(export, project=other.id), settings)
    with pytest.raises(NotFound):
        admit(database, export, settings, scope=frozenset({other.id}))


def test_a_model_may_be_what_an_export_of_the_project_wrote(
    database: Database, project: Project, settings: ServiceSettings
) -> None:
    search, _ = admit_and_submit(database, new_job(project.id), settings, who=ADMIN)
    finished(database, search)
    export = new_job(project.id, kind="export", request={}, parent=search.id)
    made, _ = admit_and_submit(database, export, settings, who=ADMIN)
    models = {"base": "base", "sources": [f"job:{made.id}"]}
    new = new_job(project.id, request=search_request(models=models))
    assert "has succeeded" in str(refused(lambda: admit(database, new, settings)))
    finished(database, made)
    job, _ = admit_and_submit(database, new, settings, who=ADMIN)
    assert job.request["models"]["sources"] == [f"job:{made.id}"]
    ready, _ = check_request(database, job, settings)
    assert ready["models"]["sources"] == [str(settings.export_dir(made.id))]
    other = make_project(database, "other", who=ADMIN)
    refused(lambda: admit(database, replace(new, project=other.id), settings))


def test_a_clone_has_the_request_and_its_changes(
    database: Database, project: Project, settings: ServiceSettings
) -> None:
    job, _ = admit_and_submit(database, new_job(project.id, priority=4), settings, who=ADMIN)
    copy, _ = clone(
        database, job.id, settings, who=ADMIN, changes={"optimizer.seed": 7, "name": "again"}
    )
    assert (copy.parent, copy.owner, copy.priority, copy.name) == (job.id, "admin", 4, "again")
    assert copy.request["optimizer"]["seed"] == 7
    assert jobs.get(database, job.id).request["optimizer"]["seed"] == 0
    with pytest.raises(JobError, match=r"set\.name\.x: name is not a mapping"):
        clone(database, job.id, settings, who=ADMIN, changes={"name.x": 1})
    with pytest.raises(Refusal):
        clone(database, job.id, settings, who=ADMIN, changes={"models.base": "/etc"})


def test_a_clone_runs_as_the_other_unless_it_is_changed(
    database: Database, project: Project, settings: ServiceSettings
) -> None:
    later = time.time() + 3600
    asked = new_job(project.id, retries=1, not_before=later, max_duration_s=77.0)
    job, _ = admit_and_submit(database, asked, settings, who=ADMIN)
    with database.write() as session:
        session.get_one(JobRow, job.id).retries_left = 0  # it was tried again since
    copy, _ = clone(database, job.id, settings, who=ADMIN)
    assert (copy.retries_left, copy.not_before, copy.max_duration_s) == (1, later, 77.0)
    run = {"priority": 9, "retries": 0, "not_before": None, "max_duration_s": 5.0}
    other, _ = clone(database, job.id, settings, who=ADMIN, run=run)
    assert (other.priority, other.retries_left, other.not_before) == (9, 0, None)
    assert (other.max_duration_s, other.parent) == (5.0, job.id)
    with pytest.raises(Refusal, match="the most on this service"):
        clone(database, job.id, settings, who=ADMIN, run={"retries": settings.limits.retries + 1})
    for column, value in (("setbacks", 1), ("not_before", time.time() - 1)):
        with database.write() as session:
            row = session.get_one(JobRow, job.id)
            row.setbacks = 0
            setattr(row, column, value)
        assert clone(database, job.id, settings, who=ADMIN)[0].not_before is None, column


def test_a_clone_with_a_known_key_is_the_job_that_it_made_before(
    database: Database, project: Project, settings: ServiceSettings
) -> None:
    job, _ = admit_and_submit(database, new_job(project.id), settings, who=ADMIN)
    changes = {"optimizer.seed": 7}

    def copied(key: str | None, changes: dict[str, Any]) -> tuple[str, bool]:
        copy, new = clone(database, job.id, settings, who=ADMIN, changes=changes, idempotency=key)
        return copy.id, new

    first, created = copied("once", changes)
    assert created
    with database.write() as session:  # the other goes on with more, and the answer was lost
        session.get_one(JobRow, job.id).changes = {"budget.candidates": 9}
    assert copied("once", changes) == (first, False)
    assert copied(None, changes)[1]
    with pytest.raises(Conflict, match="it came with another request before"):
        copied("once", {})


def test_no_job_is_changed_beyond_what_the_operator_allows(
    database: Database, project: Project, settings: ServiceSettings
) -> None:
    job, _ = admit_and_submit(
        database, new_job(project.id, max_duration_s=100.0), settings, who=ADMIN
    )
    limited = replace(settings, limits=Limits(duration_s=60.0, retries=2))
    beyond: tuple[dict[str, float], ...] = ({"max_duration_s": 61.0}, {"retries": 3})
    for changes in beyond:
        refused(lambda changes=changes: edit(database, job.id, limited, who=ADMIN, changes=changes))
    # A copy of a job of before the limit can still be made.
    assert clone(database, job.id, limited, who=ADMIN)[0].max_duration_s == 60.0
    assert jobs.get(database, job.id).max_duration_s == 100.0
    edited = edit(
        database, job.id, limited, who=ADMIN, changes={"max_duration_s": None, "retries": 2}
    )
    assert (edited.max_duration_s, edited.retries_left) == (60.0, 2)


def test_a_resumed_search_changes_its_budget_and_compute_alone(
    database: Database, project: Project, settings: ServiceSettings
) -> None:
    limited = replace(settings, limits=Limits(items=1000))
    request = search_request(budget={"items": 500})
    job, _ = admit_and_submit(database, new_job(project.id, request=request), limited, who=ADMIN)
    first = check_changes(job, {"budget.items": 900}, limited, database)
    together = check_changes(replace(job, changes=first), {"compute.workers": 2}, limited, database)
    assert together == {"budget.items": 900, "compute.workers": 2}
    for changes in (
        {"budget.items": 2000},
        {"optimizer.seed": 1},
        {"compute.dtype": "float32"},
        {"models.base": "first"},
    ):
        refused(lambda changes=changes: check_changes(job, changes, limited, database))
    with pytest.raises(JobError):
        check_changes(job, {"budget.items": "many"}, limited, database)
