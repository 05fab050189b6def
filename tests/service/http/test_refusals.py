"""What is refused names the field that was sent and a mend, in words of this project."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
from pydantic_core.core_schema import ErrorType

from evomerge.documents import DEEPEST
from evomerge.errors import JobError, RunError, StorageError
from evomerge.problem_words import problem_text
from evomerge.service.http.documents import as_mapping
from evomerge.service.http.problems import Problem, problem_of
from evomerge.service.queue.admission import admit_and_submit
from evomerge.service.store.jobs import NewJob
from tests.service.http.house import JOB, ROOT, House

NEW = {"kind": "search", "job": JOB}


def refused(answer: Any, status: int, field: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem.get("field")) == (status, field), problem
    assert problem["mend"]
    return problem


def test_a_key_of_another_request_is_named_as_it_was_sent(house: House) -> None:
    key = {"Idempotency-Key": "monday"}
    house.post("/jobs", NEW, headers=key)
    other = {"kind": "search", "job": {**JOB, "name": "other"}}
    refused(house.post("/jobs", other, headers=key), 409, "Idempotency-Key")


def test_a_key_is_compared_with_what_the_client_sent(house: House) -> None:
    """Folders are resolved by the server; the operator may allow others by the next try."""
    new = NewJob(
        kind="search",
        request=JOB,
        project=house.projects["default"],
        owner="ana",
        idempotency="again",
    )
    caller: Any = {"who": _who()}
    first, created = admit_and_submit(house.database, new, house.settings, **caller)
    assert created
    assert first.request["models"]["base"] != JOB["models"]["base"]
    without = replace(house.settings, source_folders=())
    again, created = admit_and_submit(house.database, new, without, **caller)
    assert (again.id, created) == (first.id, False)


def _who() -> Any:
    from evomerge.service.http.server import OPERATOR

    return OPERATOR


@pytest.mark.parametrize("error", [JobError("name: bad"), RunError("gone"), StorageError("away")])
def test_no_problem_is_without_a_mend(error: Any) -> None:
    assert problem_of(error).document.mend
    for status in (400, 401, 403, 404, 409, 413, 416, 421, 422, 429, 500, 503):
        assert Problem(status, "what").document.mend


def test_conflicts_say_what_can_be_done(house: House) -> None:
    ended = house.job(state="succeeded")
    for act in ("cancel", "pause", "resume", "retry", "restore", "move"):
        document: dict[str, Any] | None = {} if act == "move" else None
        answer = house.post(f"/jobs/{ended.id}/{act}", document)
        assert answer.status_code == 409
        assert not answer.json()["mend"].startswith("read the job first"), act


def test_no_words_of_pydantic_are_shown() -> None:
    context = dict.fromkeys(
        ("gt", "ge", "lt", "le", "min_length", "max_length", "pattern", "expected"), 2
    )
    for kind in get_args(ErrorType):
        problem = {"type": kind, "msg": "Input should be", "loc": ("x",), "ctx": context}
        if kind not in ("value_error", "assertion_error"):  # these have our own words
            assert "should" not in problem_text(problem), kind


@pytest.mark.parametrize(
    ("changes", "field", "limit"),
    [
        ({"budget.candidates": 10**30}, "job.budget.candidates", "1000000000"),
        ({"budget": {"items": 10**30}}, "job.budget.items", "1000000000000"),
        ({"budget.hours": 1e300}, "job.budget.hours", "1000000"),
        ({"compute.workers": 10**30}, "job.compute.workers", "10000"),
        ({"compute.gpus_per_worker": 1e9}, "job.compute.gpus_per_worker", "1024"),
        ({"optimizer.population": 10**30}, "job.optimizer.population", "1000000000"),
        ({"evaluation.batch_size": 10**30}, "job.evaluation.batch_size", "1000000000"),
        ({"evaluation.num_fewshot": 10**30}, "job.evaluation.num_fewshot", "1000"),
        ({"compute.device": "/etc/passwd"}, "job.compute.device", "auto, cpu, cuda"),
        ({"compute.device": "cuda:99999"}, "job.compute.device", "auto, cpu, cuda"),
    ],
)
def test_what_no_job_can_mean_is_refused_with_its_limit(
    house: House, changes: dict[str, Any], field: str, limit: str
) -> None:
    problem = refused(house.post("/jobs/validate", {**NEW, "set": changes}), 422, field)
    assert limit in problem["mend"]


def test_a_clone_and_a_resumed_job_have_the_same_limits(house: House) -> None:
    job = house.job(state="failed")
    huge = {"set": {"budget.candidates": 10**30}}
    for act in ("clone", "resume"):
        refused(house.post(f"/jobs/{job.id}/{act}", huge), 422, "budget.candidates")


def test_a_wrong_export_is_refused_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # the record names its models from there
    search = house.searched()
    url = f"/jobs/{search.id}/exports"
    for wanted, field in (
        ({"trial": "g9999-i999"}, "trial"),
        ({"trial": "../x"}, "trial"),
        ({"point": "middle"}, "point"),
        ({"trial": "g0000-i000", "point": "middle"}, "point"),
    ):
        problem = refused(house.post(url, wanted), 422, field)
        assert "--" not in str(problem)
        assert str(house.settings.data) not in str(problem)
    assert house.post(url, {"trial": "g0000-i000"}).status_code == 201


def test_times_are_shown_as_times(house: House) -> None:
    new = {"name": "ci", "person": "ana"}
    for expires, says in (
        ("9999-01-01T00:00:00Z", "2096-10-02T07:06:40Z"),
        ("1999-01-01T00:00:00Z", "not in the future"),
    ):
        answer = house.post("/tokens", {**new, "expires": expires}, "admin")
        problem = refused(answer, 422, "expires")
        assert problem["value"] == expires
        assert says in problem["detail"]
    job = house.job()
    far = house.ask("PATCH", f"/jobs/{job.id}", json={"not_before": "9999-01-01T00:00:00Z"})
    assert refused(far, 422, "not_before")["value"] == "9999-01-01T00:00:00Z"
    near = "2030-01-01T00:00:00Z"
    house.ask("PATCH", f"/jobs/{job.id}", json={"not_before": near})
    [edit] = house.get("/audit", "admin", params={"act": "job.edit"}).json()["items"]
    assert edit["detail"] == {"not_before": near}


def test_tasks_of_one_name_in_two_projects_are_both_listed(house: House) -> None:
    for name in ("default", "other"):
        folder = house.settings.made_tasks(house.projects[name]) / "ours"
        folder.mkdir(parents=True)
        (folder / "ours.yaml").write_text("task: ours\noutput_type: multiple_choice\n")

    def listed(who: str) -> list[str]:
        found = house.get("/tasks", who, params={"q": "ours"}).json()
        assert all(house.projects[task["project"]] in task["folder"] for task in found)
        return [task["project"] for task in found]

    assert listed("admin") == ["default", "other"]
    assert listed("viewer") == ["default"]


def test_what_is_not_ready_is_told_to_who_may_see_all(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_database: object) -> None:
        raise StorageError("postgresql://u:***@db.example/x: cannot be reached; start it")

    monkeypatch.setattr("evomerge.service.http.routes.health.check_schema", gone)
    for who in (None, "viewer", "admin"):
        answer = house.client.get("/ready", headers=house.as_(who))
        assert answer.status_code == 503
        assert [each["ok"] for each in answer.json()["checks"]] == [False, True, True]
        assert ("db.example" in answer.text) == (who == "admin")
    wrong = house.client.get("/ready", headers={"Authorization": "Bearer wrong"})
    assert wrong.status_code == 503
    assert "db.example" not in wrong.text


def test_no_folder_of_the_server_is_shown_with_a_search(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    job = house.searched()
    status = house.get(f"/jobs/{job.id}/status")
    assert status.json()["run_dir"] == job.id
    assert job.id in status.json()["export"]
    wrong = house.get(f"/jobs/{job.id}/recipe", params={"trial": "g9999-i999"})
    answers = house.get(f"/jobs/{job.id}/answers", params={"models": "nobody"})
    (house.settings.run_dir(job.id) / "study.db").write_bytes(b"rubbish")
    damaged = house.get(f"/jobs/{job.id}/status")
    assert damaged.status_code == 422
    for answer in (status, wrong, answers, damaged):
        assert str(house.settings.data) not in answer.text


def test_a_document_is_bounded_as_one_of_the_command_line_is() -> None:
    def nested(levels: int) -> Any:
        value: Any = 1
        for _ in range(levels - 1):
            value = {"a": value}
        return {"a": value}

    assert as_mapping(nested(DEEPEST), {}, where="job") == nested(DEEPEST)
    for document, changes in ((nested(DEEPEST + 1), {}), ({}, {"a": nested(DEEPEST + 1)})):
        with pytest.raises(JobError, match=f"nested more than {DEEPEST} levels deep; write it"):
            as_mapping(document, changes, where="job")
    with pytest.raises(JobError, match="more than 100,000 values; write less"):
        as_mapping({"a": [0] * 100_000}, {}, where="job")
