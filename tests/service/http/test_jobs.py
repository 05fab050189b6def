"""Jobs over HTTP: submitted, validated, listed, changed, moved; errors name field, value, mend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.service.http.house import JOB, House, open_house

NEW: dict[str, Any] = {"kind": "search", "job": JOB}


def changed(**changes: Any) -> dict[str, Any]:
    return {**NEW, "job": {**JOB, **changes}}


def test_a_job_is_submitted_and_read_back(house: House) -> None:
    made = house.post("/jobs", NEW)
    assert made.status_code == 201
    job = made.json()
    assert job["state"] == "queued"
    assert (job["kind"], job["project"], job["owner"]) == ("search", "default", "runner")
    assert made.headers["location"] == f"/api/v1/jobs/{job['id']}"
    assert house.get(f"/jobs/{job['id']}").json() == job
    assert job["request"]["budget"]["candidates"] == 40
    assert job["request"]["models"]["base"].endswith("examples/kana/models/base")


def test_a_job_may_be_the_text_of_its_file_with_changes(house: House) -> None:
    new = {"kind": "search", "job": yaml.safe_dump(JOB), "set": {"budget.candidates": 7}}
    assert house.post("/jobs", new).json()["request"]["budget"]["candidates"] == 7


def test_the_same_key_gives_the_same_job(house: House) -> None:
    key = {"Idempotency-Key": "monday"}
    first = house.post("/jobs", NEW, headers=key)
    again = house.post("/jobs", NEW, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    other = house.post("/jobs", changed(name="other"), headers=key)
    assert other.status_code == 409
    assert house.get("/jobs").json()["total"] == 1


@pytest.mark.parametrize(
    ("document", "field", "value", "detail"),
    [
        (
            changed(budget={"candidates": 0}),
            "job.budget.candidates",
            "0",
            "budget.candidates: 0: below 1; give 1 or more",
        ),
        (
            changed(budgett={"candidates": 1}),
            "job.budgett",
            None,
            "budgett: unknown key; did you mean budget?",
        ),
        (
            changed(models={"base": "/etc", "sources": ["base"]}),
            "job.models.base",
            "/etc",
            "models.base: /etc: not a model",
        ),
        ({"kind": "search"}, "job", None, "job: missing; add it"),
        (
            {**NEW, "priority": 1000},
            "priority",
            "1000",
            "priority: 1000: above 100; give 100 or less",
        ),
        ({**NEW, "retrys": 1}, "retrys", "1", "retrys: 1: no such key; check its spelling"),
        ({"job": JOB}, "kind", None, "kind: missing; add it"),
        ({"kind": "seach", "job": JOB}, "kind", "seach", "kind: seach: no such kind of job"),
        ({**NEW, "project": "none"}, "project", "none", "project: none: "),
        ({"kind": "search", "job": "a: ["}, "job", None, "job: not YAML"),
        ({"kind": "search", "job": 3}, "job", "3", "job: 3: not a mapping; write its keys"),
        ({**NEW, "set": {"a.b": 1}}, "job.a", None, "a: unknown key"),
        ({**NEW, "not_before": "tomorrow"}, "not_before", "tomorrow", "not_before: tomorrow: "),
    ],
)
def test_a_bad_job_is_refused_with_field_value_and_mend(
    house: House, document: dict[str, Any], field: str | None, value: str | None, detail: str
) -> None:
    for path in ("/jobs", "/jobs/validate"):
        answer = house.post(path, document)
        assert answer.status_code in (404, 422)
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["detail"].startswith(detail)
        assert "\n" not in problem["detail"]
        assert problem.get("field") == field
        assert problem.get("value") == value
        assert problem["request_id"] == answer.headers["x-request-id"]
    assert house.get("/jobs").json()["total"] == 0


def test_a_body_that_is_no_json_is_refused(house: House) -> None:
    headers = {"content-type": "application/json"}
    broken = house.post("/jobs", headers=headers, content=b'{"kind":')
    assert broken.status_code == 400
    assert broken.json()["detail"].startswith("the body is not JSON: ")
    wrong = house.post("/jobs", headers={"content-type": "text/plain"}, content=b"{}")
    assert wrong.status_code == 422
    assert "content-type: application/json" in wrong.json()["mend"]


@pytest.mark.parametrize(
    "body",
    [b'{"kind": "\xff"}', b'{"kind": ' + b"[" * 100_000, b'{"priority": ' + b"9" * 5000 + b"}"],
)
def test_a_body_that_breaks_the_reader_is_refused_with_a_mend(house: House, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = house.post("/jobs", headers=headers, content=body)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("the body cannot be read as JSON: ")
    assert "UTF-8" in answer.json()["mend"]


@pytest.mark.parametrize("text", ["\ud800", "a\0b"])
@pytest.mark.parametrize("key", ["search_space", "compute.device", "models.statistics"])
def test_texts_that_cannot_be_sent_back_are_refused(house: House, key: str, text: str) -> None:
    document = {"kind": "search", "job": JOB, "set": {key: text}}
    headers = {"content-type": "application/json"}
    for path in ("/jobs", "/jobs/validate"):
        answer = house.post(path, headers=headers, content=json.dumps(document).encode())
        assert answer.status_code == 422
        assert answer.json()["field"] == f"job.{key}"
        assert answer.json()["mend"] == "leave them out"
    made = house.post("/jobs", {"kind": "search", "job": JOB}).json()["id"]
    again = json.dumps({"set": {key: text}}).encode()
    for move in ("clone", "resume"):
        answer = house.post(f"/jobs/{made}/{move}", headers=headers, content=again)
        assert answer.status_code == 422, answer.text


def test_a_key_that_cannot_be_sent_back_is_refused(house: House) -> None:
    document = {"kind": "search", "job": {**JOB, "budget": {"\ud800": 1}}}
    answer = house.post(
        "/jobs",
        headers={"content-type": "application/json"},
        content=json.dumps(document).encode(),
    )
    assert answer.status_code == 422
    assert "budget" in answer.json()["field"]


def test_validation_shows_the_whole_job_and_keeps_nothing(house: House) -> None:
    answer = house.post("/jobs/validate", NEW)
    assert answer.status_code == 200
    shown = yaml.safe_load(answer.json()["yaml"])
    assert shown["optimizer"]["seed"] == 0
    assert house.get("/jobs").json()["total"] == 0


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "check", "job": JOB, "timing": False},
        {"kind": "check", "job": JOB, "devices": "8xH100", "prices": {"H100": 2.5}},
        {"kind": "evaluation", "job": JOB, "model": "base"},
        {
            "kind": "evaluation",
            "job": JOB,
            "recipe": "merge_method: linear\nmodels:\n- {model: base, parameters: {weight: 1.0}}",
        },
    ],
)
def test_other_kinds_of_jobs_are_taken(house: House, document: dict[str, Any]) -> None:
    answer = house.post("/jobs", document)
    assert answer.status_code == 201, answer.text
    assert answer.json()["kind"] == document["kind"]


def test_devices_that_no_table_has_are_refused(house: House) -> None:
    answer = house.post("/jobs", {"kind": "check", "job": JOB, "devices": "8xH10"})
    assert answer.status_code == 422
    assert answer.json()["field"] == "devices"
    assert "did you mean H100?" in answer.text


def test_jobs_are_listed_by_filters_and_in_pages(house: House) -> None:
    ids = [house.post("/jobs", changed(name=f"job{n}")).json()["id"] for n in range(5)]
    house.post(f"/jobs/{ids[0]}/cancel")
    house.job(project="other")
    page = house.get("/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in page["items"]] == ids[:2:-1]
    assert page["total"] == 5
    following = house.get("/jobs", params={"limit": 2, "cursor": page["cursor"]}).json()
    assert [job["id"] for job in following["items"]] == ids[2:0:-1]
    queued = house.get("/jobs", params={"state": ["queued", "running"]}).json()
    assert queued["total"] == 4
    assert house.get("/jobs", params={"q": "job3"}).json()["items"][0]["id"] == ids[3]
    assert house.get("/jobs", params={"owner": "nobody"}).json()["total"] == 0
    assert house.get("/jobs", params={"project": "default"}).json()["total"] == 5
    assert house.get("/jobs", params={"project": "other"}).status_code == 404
    assert house.get("/jobs", params={"cursor": "made up"}).status_code == 422
    assert house.get("/jobs", params={"state": "lazy"}).json()["field"] == "state.0"


def test_a_job_is_changed_moved_deleted_and_restored(house: House) -> None:
    first, second = (house.post("/jobs", NEW).json()["id"] for _ in range(2))
    changes = {"name": "new", "priority": 5, "not_before": "2030-01-01T00:00:00Z"}
    changed_job = house.ask("PATCH", f"/jobs/{first}", json=changes).json()
    assert (changed_job["name"], changed_job["priority"]) == ("new", 5)
    assert changed_job["not_before"] == "2030-01-01T00:00:00Z"
    house.ask("PATCH", f"/jobs/{first}", json={"priority": 0})
    moved = house.post(f"/jobs/{second}/move", {"before": first}).json()
    assert moved["place"] < house.get(f"/jobs/{first}").json()["place"]
    assert house.post(f"/jobs/{first}/pause").json()["state"] == "paused"
    assert house.post(f"/jobs/{first}/resume").json()["state"] == "queued"
    assert house.post(f"/jobs/{first}/cancel").json()["state"] == "cancelled"
    assert house.post(f"/jobs/{first}/cancel").status_code == 409
    assert house.post(f"/jobs/{first}/retry").json()["state"] == "queued"
    key = {"Idempotency-Key": "again"}
    copy = house.post(f"/jobs/{first}/clone", {"set": {"budget.candidates": 9}}, headers=key)
    twice = house.post(f"/jobs/{first}/clone", {"set": {"budget.candidates": 9}}, headers=key)
    assert (twice.status_code, twice.json()["id"]) == (200, copy.json()["id"])
    assert twice.headers["location"] == copy.headers["location"]
    assert copy.status_code == 201
    assert copy.json()["request"]["budget"]["candidates"] == 9
    assert house.ask("DELETE", f"/jobs/{first}").json()["deleted"] is not None
    assert first not in {job["id"] for job in house.get("/jobs").json()["items"]}
    assert house.post(f"/jobs/{first}/restore").json()["deleted"] is None


def test_a_copy_is_changed_in_all_that_a_job_is_asked_for(house: House) -> None:
    start = "2040-01-01T00:00:00Z"
    given = {"priority": 3, "not_before": start, "max_duration_s": 99.5, "retries": 2}
    first = house.post("/jobs", {**NEW, **given}).json()
    clone = f"/jobs/{first['id']}/clone"

    def run_of(job: dict[str, Any]) -> list[Any]:
        return [job[key] for key in ("priority", "not_before", "max_duration_s", "retries_left")]

    nulls = {"priority": None, "retries": None}
    for same in ({}, nulls):
        assert run_of(house.post(clone, same).json()) == [3, start, 99.5, 2]
    cleared = house.post(clone, {"not_before": None, "max_duration_s": None}).json()
    assert run_of(cleared) == [3, None, None, 2]
    other = {
        "priority": -1,
        "not_before": "2041-01-01T00:00:00Z",
        "max_duration_s": 5,
        "retries": 0,
    }
    assert run_of(house.post(clone, other).json()) == list(other.values())
    for wrong in ({"priority": 101}, {"retries": -1}, {"max_duration_s": 0}, {"not_before": "x"}):
        answer = house.post(clone, wrong)
        assert (answer.status_code, answer.json()["field"]) == (422, next(iter(wrong)))


def test_a_copy_can_be_given_a_whole_job(house: House) -> None:
    """As the page does, so that the copy is what its form or its YAML shows."""
    first = house.post("/jobs", {**NEW, "set": {"optimizer.seed": 4}}).json()
    text = yaml.safe_dump({**JOB, "name": "by-hand", "budget": {"items": 7000}})
    wanted = house.post("/jobs/validate", {"kind": "search", "job": text}).json()["request"]
    copy = house.post(f"/jobs/{first['id']}/clone", {"set": wanted}).json()
    assert (copy["parent"], copy["name"]) == (first["id"], "by-hand")
    assert copy["request"] == wanted


def test_an_export_is_a_job_of_its_own(house: House) -> None:
    search = house.searched()
    answer = house.post(f"/jobs/{search.id}/exports", {"verify": True})
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert (job["kind"], job["parent"]) == ("export", search.id)
    assert job["request"]["verify"] is True
    exports = house.get("/jobs", params={"parent": search.id}).json()["items"]
    assert [each["id"] for each in exports] == [job["id"]]


def test_what_does_not_fit_a_state_is_a_conflict(house: House) -> None:
    job = house.job(state="succeeded")
    for act in ("cancel", "pause", "retry"):
        answer = house.post(f"/jobs/{job.id}/{act}")
        assert answer.status_code == 409
        assert answer.json()["type"] == "urn:evomerge:conflict"


def test_what_a_job_may_name_is_listed(house: House) -> None:
    models = house.get("/models").json()
    assert {"base", "arithmetic"} <= {model["reference"] for model in models}
    assert models[0]["architecture"] == "LlamaForCausalLM"
    assert models[0]["size_bytes"] > 0
    tasks = house.get("/tasks", params={"q": "kana_arithmetic_en"}).json()
    assert tasks[0]["metrics"][0]["name"] == "exact_match"
    assert "file" not in tasks[0]
    every = house.get("/tasks", params={"q": "20_newsgroups", "all": True}).json()
    assert (every[0]["name"], every[0]["metrics"]) == ("20_newsgroups", None)
    spaces = {space["name"] for space in house.get("/spaces").json()}
    assert "one_weight_per_model" in spaces
    methods = {method["name"] for method in house.get("/methods").json()}
    assert {"task_arithmetic", "ties"} <= methods


@pytest.mark.parametrize("config", ["{", "[" * 100_000, '{"architectures": [[]]}', "[]"])
def test_a_broken_model_is_listed_beside_the_others(
    template: Path, tmp_path: Path, config: str
) -> None:
    for name, text in (("broken", config), ("whole", '{"architectures": ["Whole"]}')):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text(text)
        (tmp_path / "models" / name / "model.safetensors").write_bytes(b"")
    house = open_house(tmp_path / "data", template, models=tmp_path / "models")
    with house.client:
        listed = {each["reference"]: each for each in house.get("/models").json()}
    house.database.close()
    assert set(listed) == {"broken", "whole"}
    assert listed["whole"]["architecture"] == "Whole"


def test_a_job_names_models_as_they_are_listed(house: House) -> None:
    names = [model["reference"] for model in house.get("/models").json()]
    sources = [name for name in names if name != "base"][:2]
    answer = house.post("/jobs", changed(models={"base": "base", "sources": sources}))
    assert answer.status_code == 201, answer.text
