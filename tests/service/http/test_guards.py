"""What every request passes before a route sees it, and what every answer has."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from starlette.types import Message, Scope

from evomerge.service.http import table_process
from evomerge.service.http.guards import UNSAFE
from evomerge.service.http.web_settings import WebSettings
from evomerge.service.store import people
from evomerge.service.webhooks import post
from tests.service.http.house import API, JOB, ROOT, House, log_in, open_house, routes

EVIL = "https://evil.example"
TURNED = "\u202egpj.exe"


@pytest.mark.parametrize("path", ["/jobs", "/uploads"])
@pytest.mark.parametrize("header", [b"", b"Bearer evm_wrong"])
def test_no_body_is_read_without_a_token(house: House, path: str, header: bytes) -> None:
    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": f"{API}{path}",
        "query_string": b"name=a.csv",
        "headers": [
            (b"host", b"127.0.0.1:8321"),
            (b"content-type", b"application/json"),
            (b"transfer-encoding", b"chunked"),
            *([(b"authorization", header)] if header else []),
        ],
    }
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body is read")

    async def send(message: Message) -> None:
        sent.append(message)

    async def ask() -> None:
        await house.client.app(scope, receive, send)

    asyncio.run(ask())
    assert sent[0]["status"] == 401


def test_another_site_can_use_no_route_that_changes_something(house: House) -> None:
    csrf = log_in(house)
    changing = [each for each in routes(house) if each[0] != "GET"]
    assert {method for method, _ in changing} == UNSAFE - {"PUT"}
    foreign = {"Origin": EVIL, "X-CSRF-Token": csrf}
    for method, path in changing:
        answer = house.client.request(method, path, headers=foreign)
        assert (answer.status_code, answer.json()["field"]) == (403, "Origin"), (method, path)
        if path == f"{API}/session" and method == "POST":
            continue  # there is no session yet
        answer = house.client.request(method, path)
        assert answer.status_code == 403, (method, path)
        assert answer.json()["field"] == "X-CSRF-Token", (method, path)


def test_refusals_and_failures_have_the_headers_of_security_too(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = open_house(tmp_path / "data", template, body_bytes=10)

    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("broken")

    answers = [
        house.client.get("/health", headers={"Host": "evil.example"}),
        house.post("/jobs", headers={"Origin": EVIL}),
        house.post("/jobs", {"kind": "search"}),
    ]
    with monkeypatch.context() as patch:
        patch.setattr("evomerge.service.store.jobs.find", broken)
        answers.append(house.get("/jobs"))
    monkeypatch.setattr(people, "token_of", broken)
    answers.append(house.get("/jobs"))
    assert [answer.status_code for answer in answers] == [421, 403, 413, 500, 500]
    for answer in answers:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-request-id"] == answer.json()["request_id"]
    house.database.close()


def test_no_name_turns_the_direction_of_writing_or_ends_a_line(house: House) -> None:
    job = house.job().id
    search = {"kind": "search", "job": JOB}
    token = {"name": "n", "person": "p", "role": "viewer"}
    webhook = {"url": "https://hooks.example/x"}
    made = house.post("/webhooks", webhook).json()["id"]
    for name in (TURNED, "a\u2066b", "a\u2028b"):
        for method, path, field, document in (
            ("POST", "/jobs", "name", search),
            ("POST", "/jobs/validate", "name", search),
            ("POST", f"/jobs/{job}/clone", "name", {}),
            ("PATCH", f"/jobs/{job}", "name", {}),
            ("POST", "/tokens", "name", token),
            ("POST", "/tokens", "person", token),
            ("POST", "/projects", "name", {}),
            ("POST", "/webhooks", "name", webhook),
            ("PATCH", f"/webhooks/{made}", "name", {}),
        ):
            answer = house.ask(method, path, "admin", json={**document, field: name})
            problem = answer.json()
            assert (answer.status_code, problem["field"]) == (422, field), (method, path, problem)
            assert problem["mend"] == "leave them out"
            assert name not in answer.text
    assert house.get("/jobs", params={"q": TURNED}).status_code == 200


def test_the_numbers_of_the_page_on_security_are_those_that_are_shipped() -> None:
    page = " ".join((ROOT / "SECURITY.md").read_text(encoding="utf-8").split())
    web = WebSettings()
    assert web.heartbeat_s <= 10  # "end within seconds"
    for words in (
        f"a body above {web.body_bytes / 2**20:g} MiB",
        f"nothing more of an answer once {post._READ_BYTES / 2**10:g} KiB have come",
        f"waits {post.TIMEOUT_S:g} seconds at most",
        f"{table_process.READING_BYTES / 2**30:g} GiB of memory to read it",
        f"{table_process.MAKING_BYTES / 2**30:g} GiB to make a task of it",
    ):
        assert words in page, words
    assert table_process._LONGEST_S == 3 * 60 and "three minutes" in page
