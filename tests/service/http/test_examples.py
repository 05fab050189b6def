"""The examples of the OpenAPI document: true to their schemas, accepted, and what is answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator

from evomerge.service.database.engine import NoAccess
from evomerge.service.http.examples import PROBLEMS, REQUESTS
from evomerge.service.http.routes import uploads
from evomerge.service.settings import Limits
from tests.service.http.house import JOB, ROOT, House, open_house


@pytest.fixture(scope="module")
def shared(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = open_house(tmp_path_factory.mktemp("examples") / "data", template, models=ROOT)
    with house.client:
        yield house
    house.database.close()


@pytest.fixture(scope="module")
def document(shared: House) -> dict[str, Any]:
    found: dict[str, Any] = shared.client.get("/openapi.json").json()
    return found


def faults(document: dict[str, Any], schema: str, example: Any) -> list[str]:
    whole = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    return [error.message for error in Draft202012Validator(whole).iter_errors(example)]


def models_of(schema: dict[str, Any]) -> set[str]:
    """Names of the models that a body may be."""
    parts = [schema, *schema.get("oneOf", ()), *schema.get("anyOf", ())]
    return {part["$ref"].rpartition("/")[2] for part in parts if "$ref" in part}


def test_every_request_has_examples_that_are_true_to_its_schema(document: dict[str, Any]) -> None:
    sent = set()
    for methods in document["paths"].values():
        for operation in methods.values():
            bodies = operation.get("requestBody", {}).get("content", {})
            sent |= models_of(bodies.get("application/json", {}).get("schema", {}))
    assert sent == set(REQUESTS)
    for name in sent:
        examples = document["components"]["schemas"][name]["examples"]
        assert examples
        for example in examples:
            assert faults(document, name, example) == [], (name, example)
    assert faults(document, "NewToken", {"name": "ci"}) != []


def test_every_refusal_has_an_example_that_is_true_to_its_schema(document: dict[str, Any]) -> None:
    examples, used = document["components"]["examples"], set()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                content = response.get("content", {}).get("application/problem+json")
                if content is not None:
                    [example] = content["examples"].values()
                    name = example["$ref"].rpartition("/")[2]
                    assert examples[name]["value"]["status"] == int(status), path
                    used.add(name)
    assert used == set(examples)
    for name in used:
        assert faults(document, "ProblemDocument", examples[name]["value"]) == []
    missing = {"type": "urn:evomerge:input"}
    assert faults(document, "ProblemDocument", missing) != []


def test_the_server_accepts_every_example_or_says_why_not(shared: House) -> None:
    texts = shared.settings.uploads(shared.projects["default"])
    texts.mkdir(parents=True)
    (texts / "texts.jsonl").write_text('{"text": "one"}\n')
    first = shared.post("/jobs", REQUESTS["NewSearch"][1]).json()["id"]
    webhook = shared.post("/webhooks", {"url": "https://hooks.example.com/"}).json()["id"]
    search = shared.searched().id
    places = {
        "NewExport": ("POST", f"/jobs/{search}/exports", "runner"),
        "JobChanges": ("PATCH", f"/jobs/{first}", "runner"),
        "Resumption": ("POST", f"/jobs/{first}/resume", "runner"),
        "CloneRequest": ("POST", f"/jobs/{first}/clone", "runner"),
        "MoveRequest": ("POST", f"/jobs/{first}/move", "runner"),
        "Login": ("POST", "/session", None),
        "NewProject": ("POST", "/projects", "admin"),
        "NewToken": ("POST", "/tokens", "admin"),
        "NewWebhook": ("POST", "/webhooks", "runner"),
        "WebhookChanges": ("PATCH", f"/webhooks/{webhook}", "runner"),
        "Rotation": ("POST", f"/webhooks/{webhook}/rotate", "runner"),
        "NewTask": ("POST", "/tasks/from-file", "runner"),
    }
    refused = {}
    for name, examples in REQUESTS.items():
        for example in examples:
            method, path, who = places.get(name, ("POST", "/jobs", "runner"))
            answer = shared.ask(method, path, who, json=example)
            if answer.status_code >= 300:
                refused[name] = (answer.status_code, answer.json()["detail"])
    # The only ones that name something that no other server has: a token, and an upload.
    assert refused == {
        "Login": (401, "the token is not known, was revoked or has expired"),
        "NewTask": (404, "upload: ux3k5q7n2a4b6c8d: no such upload; check its id"),
    }


def provoked(
    house: House, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[httpx2.Response]:
    """An answer of each kind that refuses."""
    new = {"kind": "search", "job": {**JOB, "models": REQUESTS["NewCheck"][0]["job"]["models"]}}
    json_type = {"content-type": "application/json"}
    yield house.ask("POST", "/jobs", headers=json_type, content=b'{"kind": "search",')
    yield house.get("/jobs", None)
    yield house.post("/jobs", new, "viewer")
    yield house.get("/jobs/jx3k5q7n2a4b6c8d")
    for name in ("one", "another"):
        key = {"Idempotency-Key": "monday"}
        conflict = house.post("/jobs", {**new, "job": {**new["job"], "name": name}}, headers=key)
    yield conflict
    yield house.ask("POST", "/jobs", headers={**json_type, "content-length": "5000000"})
    form = {"content-type": "multipart/form-data"}
    yield house.ask("POST", "/uploads?name=a.csv", headers=form)
    files = f"/jobs/{house.exported({'README.md': b'# A model.'}).id}/files"
    yield house.get(f"{files}/README.md", headers={"Range": "bytes=5000-"})
    yield house.get("/jobs", headers={"Host": "merge.example"})
    yield house.post("/jobs", {**new, "set": {"budget.candidates": 0}})
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=-1))
        yield house.ask("POST", "/uploads?name=a.csv", content=b"a,b\n1,2\n")

    async def nothing_comes(*_: object) -> Any:
        raise TimeoutError
        yield b""

    with monkeypatch.context() as patch:
        patch.setattr(uploads, "_pieces", nothing_comes)
        yield house.ask("POST", "/uploads?name=a.csv", content=b"a,b\n1,2\n")

    def away(*_args: object, **_kwargs: object) -> None:
        raise NoAccess("the database gives no access")

    with monkeypatch.context() as patch:
        patch.setattr("evomerge.service.store.people.token_of", away)
        yield house.get("/jobs")
    limits = Limits(jobs_queued=2)
    small = open_house(tmp_path / "data", template, models=ROOT, limits=limits)
    with small.client:
        ana = {"name": "n", "person": "ana", "role": "runner", "projects": ["default"]}
        secret = small.post("/tokens", ana, "admin").json()["secret"]
        headers = {"Authorization": f"Bearer {secret}"}
        for _ in range(3):
            last = small.post("/jobs", new, None, headers=headers)
        yield last
    small.database.close()


def test_what_refuses_is_answered_as_its_example_says(
    shared: House, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = {}
    for answer in provoked(shared, template, tmp_path, monkeypatch):
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem.pop("request_id") == answer.headers["x-request-id"]
        answered[answer.status_code] = problem
    assert answered == {
        status: {key: value for key, value in example.items() if key != "request_id"}
        for status, example in PROBLEMS.items()
    }
