"""The OpenAPI document: complete, and true of what the server does for every role."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode, checks

from tests.service.http.house import URL, House, open_house

FILES = {"README.md": b"# A model\n"}


@pytest.fixture(scope="module")
def shared(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = open_house(tmp_path_factory.mktemp("openapi") / "data", template)
    with house.client:
        yield house
    house.database.close()


def document(house: House) -> dict[str, Any]:
    found: dict[str, Any] = house.client.get("/openapi.json").json()
    return found


def operations(house: House) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in document(house)["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_route_says_what_it_does_and_how_it_refuses(shared: House) -> None:
    schemas = document(shared)["components"]["schemas"]
    for method, path, operation in operations(shared):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        assert operation["tags"], where
        for status, response in operation["responses"].items():
            assert response["description"], where
            if status >= "400" and not (path == "/ready" and status == "503"):
                assert set(response["content"]) == {"application/problem+json"}, where
        if path.startswith("/api/v1") and (method, path) != ("post", "/api/v1/session"):
            assert operation["security"], where
            assert "401" in operation["responses"], where
        if "{job_id}" in path:
            assert "404" in operation["responses"], where
        if method in ("post", "patch", "delete"):
            assert {"403", "429"} <= set(operation["responses"]), where
    assert {"JobSpec", "ProblemDocument", "NewSearch"} <= set(schemas)
    assert "HTTPValidationError" not in schemas
    job = schemas["NewSearch"]["properties"]["job"]
    assert {"$ref": "#/components/schemas/JobSpec"} in job["anyOf"]
    assert job["examples"]


def fields_of(house: House, operation: dict[str, Any]) -> set[str]:
    """The fields that a body of JSON may have, also where it is one of several documents."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    schemas = document(house)["components"]["schemas"]
    waiting, found = [content.get("schema", {})], set()
    while waiting:
        schema = waiting.pop()
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
        waiting += [*schema.get("oneOf", ()), *schema.get("anyOf", ()), *schema.get("allOf", ())]
        found |= set(schema.get("properties", ()))
    return found


@pytest.mark.parametrize("levels", [90, 900, 5000])
def test_no_body_is_nested_too_deep_for_the_server(shared: House, levels: int) -> None:
    lists, mappings = "[" * levels + "]" * levels, '{"a": ' * levels + "1" + "}" * levels
    headers = {**shared.as_("admin"), "content-type": "application/json"}
    tried = 0
    for method, path, operation in operations(shared):
        usual = '"kind": "search"' if path == "/api/v1/jobs" else '"x": 1'
        bodies = [
            f'{{{usual}, "{field}": {deep}}}'
            for field in sorted(fields_of(shared, operation))
            for deep in (lists, mappings)
        ]
        for body in bodies and [lists, mappings, *bodies]:
            sent = re.sub(r"{[^}]+}", "jaaaaaaaaaaaaaaa", path)
            answer = shared.client.request(method, sent, headers=headers, content=body)
            assert 400 <= answer.status_code < 500, (method, path, body[:60], answer.text[:300])
            assert len(answer.text) < 3000
            tried += 1
    assert tried > 100


TRUE = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
"""`unsupported_method` is left out: FastAPI's Allow names the first route of a path only."""

ROLES = ("viewer", "runner", "admin")

SLOW = ("/figures", "/report", "/coefficients")
"""These start a process where there is a record; a job without one is asked for them."""


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.name.lower())
@pytest.mark.parametrize("who", [*ROLES, None])
def test_whatever_is_sent_the_answer_is_as_documented(
    shared: House, who: str | None, mode: GenerationMode, request: pytest.FixtureRequest
) -> None:
    thorough = request.config.getoption("--faults")
    if mode is GenerationMode.NEGATIVE and who != "admin" and not thorough:
        pytest.skip("an admin reaches every check of what is sent; --faults tries all")
    search, export, waiting = shared.searched(), shared.exported(FILES), shared.job()
    made = shared.post("/webhooks", {"url": "https://hooks.example.com/"})
    # After some examples the project has as many as it may.
    webhook = (made.json() if made.status_code == 201 else shared.get("/webhooks").json()[0])["id"]
    schema = schemathesis.openapi.from_dict(document(shared))
    asked = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        path = operation.path
        known = waiting if path.endswith(SLOW) or operation.method != "get" else search
        if path.endswith(("/files", "/files/{path}", "/archive")):
            known = export

        @settings(
            max_examples=60 if thorough else 2,
            deadline=None,
            database=None,
            derandomize=not thorough,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(mode), real=st.booleans())
        def never_breaks(case: Case, real: bool) -> None:
            nonlocal asked
            if real and "job_id" in (case.path_parameters or {}):
                case.path_parameters["job_id"] = known.id  # noqa: B023
            if real and "webhook_id" in (case.path_parameters or {}):
                case.path_parameters["webhook_id"] = webhook
            if case.path == "/api/v1/session" and case.method == "DELETE":
                return
            asked += 1
            kwargs = case.as_transport_kwargs(base_url=URL)
            kwargs.pop("cookies", None)
            headers = {
                name: value.encode("utf-8", "surrogateescape")
                for name, value in {**kwargs.pop("headers", {}), **shared.as_(who)}.items()
                if name.lower() not in ("authorization", "cookie", "x-csrf-token")
                or value == shared.as_(who).get("Authorization")
            }
            shared.client.cookies.clear()
            answer = shared.client.request(headers=headers, **kwargs)
            case.validate_response(answer, checks=TRUE)
            if who is None and case.path.startswith("/api/v1") and case.path != "/api/v1/session":
                assert answer.status_code == 401

        try:
            never_breaks()
        except Unsatisfiable:  # nothing that is sent can be wrong
            continue
    assert asked > 30
