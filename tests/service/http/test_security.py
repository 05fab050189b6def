"""Who may do what, and what hostile requests get."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from evomerge.service.http.app import make_app
from evomerge.service.http.server import OPERATOR
from evomerge.service.http.web_settings import WebSettings
from evomerge.service.settings import ServiceSettings
from evomerge.service.store import people
from tests.service.http.house import API, JOB, URL, House, log_in, open_house, routes

NEW = {"kind": "search", "job": JOB}


# Tokens.


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer evm_wrong"},
        {"Authorization": "Bearer " + "x" * 5000},
        {"Authorization": "Basic YWRtaW46YWRtaW4="},
        {"Authorization": "Bearer \xff\xfe"},
        {"Cookie": "evomerge_session=wrong"},
        {"Cookie": "evomerge_session=" + "x" * 5000},
        {"Authorization": "bearer ' or 1=1 --"},
    ],
)
def test_nothing_is_answered_without_a_token(house: House, header: dict[str, str]) -> None:
    for method, path in routes(house):
        if (method, path) == ("POST", f"{API}/session"):
            continue
        encoded = {name: value.encode("latin-1") for name, value in header.items()}
        answer = house.client.request(method, path, headers=encoded, content=b"\0 no json")
        assert answer.status_code in (401, 429), (method, path)
        assert answer.headers["content-type"] == "application/problem+json"
        if answer.status_code == 401:
            assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_token_in_the_address_is_no_token(house: House) -> None:
    secret = house.tokens["admin"]
    for name in ("token", "access_token", "api_key", "authorization"):
        assert house.get("/jobs", who=None, params={name: secret}).status_code == 401


def test_a_revoked_and_an_expired_token_are_refused_at_once(house: House) -> None:
    assert house.get("/jobs", "viewer").status_code == 200
    [token] = [each for each in house.get("/tokens", "admin").json() if each["name"] == "viewer"]
    assert house.ask("DELETE", f"/tokens/{token['id']}", "admin").json()["revoked"]
    assert house.get("/jobs", "viewer").status_code == 401
    _, secret = people.make_token(
        house.database,
        name="short",
        person="ana",
        role="viewer",
        expires=time.time() + 0.05,
        who=OPERATOR,
    )
    time.sleep(0.1)
    header = {"Authorization": f"Bearer {secret}"}
    assert house.get("/jobs", None, headers=header).status_code == 401


def test_secrets_are_kept_hashed(house: House) -> None:
    login = house.post("/session", {"token": house.tokens["admin"]}, None)
    session = login.cookies["evomerge_session"]
    kept = b"".join(file.read_bytes() for file in house.settings.data.glob("evomerge.db*"))
    for secret in (house.tokens["admin"], house.tokens["viewer"], session):
        assert secret.encode() not in kept


ALLOWED = {
    ("POST", "/session"): "viewer",
    ("DELETE", "/session"): "viewer",
    ("GET", "/tokens"): "admin",
    ("GET", "/audit"): "admin",
    ("POST", "/tokens"): "admin",
    ("DELETE", "/tokens"): "admin",
    ("POST", "/projects"): "admin",
}


def test_a_viewer_changes_nothing_and_only_an_admin_sees_tokens(house: House) -> None:
    for method, path in routes(house):
        part = "/" + path.removeprefix(f"{API}/").split("/")[0]
        needs = ALLOWED.get((method, part), "viewer" if method == "GET" else "runner")
        if (method, path) == ("DELETE", f"{API}/webhooks"):  # all that a person made
            needs = "admin"
        body: dict[str, Any] = {} if method in ("GET", "DELETE") else {"json": {}}
        for who in ("viewer", "runner"):
            if path == f"{API}/session" or path.endswith("/events"):
                continue
            status = house.client.request(method, path, headers=house.as_(who), **body).status_code
            rank = ["viewer", "runner", "admin"]
            if rank.index(who) < rank.index(needs):
                assert status == 403, (method, path, who)
            elif path != "/metrics":
                assert status not in (401, 403), (method, path, who)


# Projects.


def test_a_job_of_another_project_does_not_exist(house: House) -> None:
    own = house.job()
    unknown = house.get("/jobs/jaaaaaaaaaaaaaaa", "other").json()
    for method, path in routes(house):
        if own.id not in path and "/jobs/" not in path:
            continue
        path = re.sub(r"j[a-z2-7]{15}", own.id, path)
        if "/tokens/" in path or path.endswith("/validate"):
            continue
        body: dict[str, Any] = {} if method in ("GET", "DELETE") else {"json": {}}
        if path.endswith("/move"):
            body = {"json": {"before": None}}
        answer = house.client.request(method, path, headers=house.as_("other"), **body)
        assert answer.status_code == 404, (method, path, answer.text)
        problem = answer.json()
        assert problem["title"] == unknown["title"]
        assert own.name not in problem["detail"]
    assert house.get("/jobs", "other").json()["total"] == 0
    assert house.get("/jobs", "other", params={"q": own.id}).json()["total"] == 0
    assert house.get(f"/jobs/{own.id}").json()["state"] == "queued"


def test_a_job_cannot_be_moved_before_or_exported_from_another_project(house: House) -> None:
    theirs = house.job(project="other")
    mine = house.post("/jobs", NEW).json()["id"]
    assert house.post(f"/jobs/{mine}/move", {"before": theirs.id}).status_code == 404
    wanted = {**NEW, "project": "other"}
    assert house.post("/jobs", wanted).status_code == 404


def test_an_admin_of_one_project_gives_no_rights_beyond_it(house: House) -> None:
    new = {"name": "n", "person": "eve", "role": "admin"}
    assert house.post("/tokens", new, "scoped").status_code == 403
    assert house.post("/tokens", {**new, "projects": ["other"]}, "scoped").status_code == 404
    assert house.post("/tokens", {**new, "projects": ["default"]}, "scoped").status_code == 201
    assert house.post("/projects", {"name": "third"}, "scoped").status_code == 403
    seen = {each["name"] for each in house.get("/tokens", "scoped").json()}
    assert seen == {"viewer", "runner", "scoped", "n"}
    every = {each["name"]: each["id"] for each in house.get("/tokens", "admin").json()}
    for name in ("admin", "other"):
        assert house.ask("DELETE", f"/tokens/{every[name]}", "scoped").status_code == 404
    assert [each["name"] for each in house.get("/projects", "scoped").json()] == ["default"]
    house.job(project="other")
    acts = house.get("/audit", "scoped").json()["items"]
    assert {act["project"] for act in acts} <= {"default"}
    assert house.get("/metrics".join([URL, ""]), "scoped").status_code == 403


# Browser sessions.


def test_a_browser_logs_in_with_a_cookie_that_scripts_cannot_read(house: House) -> None:
    answer = house.post("/session", {"token": house.tokens["runner"]}, None)
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert house.tokens["runner"] not in answer.text + cookie
    shown = house.get("/session", None).json()
    assert (shown["person"], shown["role"], shown["projects"]) == ("runner", "runner", ["default"])
    assert shown["csrf"] == answer.json()["csrf"]


def test_over_tls_the_cookie_is_for_tls_and_this_host_only(template: Path, tmp_path: Path) -> None:
    house = open_house(tmp_path / "data", template)
    settings = ServiceSettings(data=house.settings.data, slots=0, behind_proxy=True)
    client = TestClient(make_app(settings, house.database), base_url=URL)
    answer = client.post(f"{API}/session", json={"token": house.tokens["viewer"]})
    assert answer.headers["set-cookie"].startswith("__Host-evomerge=")
    assert "Secure" in answer.headers["set-cookie"]
    assert "max-age" in answer.headers["strict-transport-security"]
    house.database.close()


def test_a_session_changes_nothing_without_its_csrf_value(house: House) -> None:
    csrf = log_in(house)
    for headers in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "x" * 43}):
        answer = house.post("/jobs", NEW, None, headers=headers)
        assert answer.status_code == 403
        assert answer.json()["field"] == "X-CSRF-Token"
    good = {"X-CSRF-Token": csrf}
    assert house.post("/jobs", NEW, None, headers=good).status_code == 201
    assert house.ask("DELETE", "/session", None).status_code == 403
    secret = house.client.cookies["evomerge_session"]
    assert house.ask("DELETE", "/session", None, headers=good).status_code == 204
    house.client.cookies.clear()
    header = {"Cookie": f"evomerge_session={secret}"}
    assert house.get("/session", None, headers=header).status_code == 401


def test_a_session_ends_with_its_token(house: House) -> None:
    log_in(house, "viewer")
    [token] = [each for each in house.get("/tokens", "admin").json() if each["name"] == "viewer"]
    assert house.get("/jobs", None).status_code == 200
    house.ask("DELETE", f"/tokens/{token['id']}", "admin")
    assert house.get("/jobs", None).status_code == 401


def test_another_site_can_change_nothing(house: House) -> None:
    csrf = log_in(house)
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://127.0.0.1:8321.evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        answer = house.post("/jobs", NEW, None, headers={"X-CSRF-Token": csrf, **headers})
        assert answer.status_code == 403, headers
    own = {"Origin": URL, "Sec-Fetch-Site": "same-origin", "X-CSRF-Token": csrf}
    assert house.post("/jobs", NEW, None, headers=own).status_code == 201
    login = house.post(
        "/session",
        {"token": house.tokens["viewer"]},
        None,
        headers={"Origin": "https://evil.example"},
    )
    assert login.status_code == 403


def test_no_page_of_another_site_may_read_an_answer(house: House) -> None:
    answer = house.get("/jobs", headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    asked = house.client.options(
        f"{API}/jobs",
        headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
    )
    assert asked.status_code in (401, 405)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8321",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.1@evil.example",
        "127.0.0.1/evil.example",
        "192.168.1.7",
        "",
        "a b",
        "[::1",
        "localhost:port",
    ],
)
def test_a_foreign_name_is_refused(house: House, host: str) -> None:
    for path in ("/", "/health", f"{API}/jobs"):
        answer = house.client.get(path, headers={**house.as_("admin"), "Host": host})
        assert answer.status_code == 421, path


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8321"])
def test_the_names_of_this_machine_are_taken(house: House, host: str) -> None:
    assert house.client.get("/health", headers={"Host": host}).status_code == 200


def test_behind_a_proxy_its_public_names_are_taken(template: Path, tmp_path: Path) -> None:
    house = open_house(tmp_path / "data", template)
    settings = ServiceSettings(data=house.settings.data, slots=0, behind_proxy=True)
    web = WebSettings(hosts=("merge.example",))
    client = TestClient(make_app(settings, house.database, web=web), base_url=URL)
    assert client.get("/health", headers={"Host": "merge.example"}).status_code == 200
    assert client.get("/health", headers={"Host": "evil.example"}).status_code == 421
    house.database.close()


# Limits.


def test_many_wrong_tokens_are_held_off_but_not_who_is_known(
    template: Path, tmp_path: Path
) -> None:
    house = open_house(tmp_path / "data", template, failed_logins=3, failed_logins_s=60.0)
    assert house.get("/jobs", "viewer").status_code == 200
    wrong = {"Authorization": "Bearer evm_guess"}
    statuses = [house.get("/jobs", None, headers=wrong).status_code for _ in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    held = house.post("/session", {"token": house.tokens["admin"]}, None)
    assert held.status_code == 429
    assert 0 < int(held.headers["retry-after"]) <= 60
    assert house.get("/jobs", "viewer").status_code == 200
    house.database.close()


def test_a_token_has_a_rate(template: Path, tmp_path: Path) -> None:
    house = open_house(tmp_path / "data", template, requests_per_s=0.01, burst=3)
    statuses = [house.get("/jobs").status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    assert house.get("/jobs", "runner").status_code == 200
    login = {"token": house.tokens["other"]}
    statuses = [house.post("/session", login, None).status_code for _ in range(4)]
    assert statuses == [201, 201, 201, 429]  # each is kept
    house.database.close()


def test_a_large_body_is_refused_whatever_it_says_of_its_length(
    template: Path, tmp_path: Path
) -> None:
    house = open_house(tmp_path / "data", template, body_bytes=10_000)
    large = json.dumps({**NEW, "name": "x" * 20_000}).encode()
    headers = {"content-type": "application/json"}
    assert house.post("/jobs", content=large, headers=headers).status_code == 413

    def parts() -> Any:
        for begin in range(0, len(large), 1000):
            yield large[begin : begin + 1000]

    streamed = house.post("/jobs", content=parts(), headers=headers)
    assert streamed.status_code == 413
    assert streamed.headers["content-type"] == "application/problem+json"
    assert house.get("/jobs").json()["total"] == 0
    house.database.close()


def test_documents_that_are_too_deep_or_repeat_themselves_are_refused(house: House) -> None:
    deep: Any = 0
    for _ in range(500):
        deep = {"a": deep}
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
    )
    for job in (
        {**JOB, "search_space": deep},
        bomb,
        "!!python/object/apply:os.system [id]",
        "a: &a [*a]",
        "a: " + "[" * 5000,
    ):
        answer = house.post("/jobs", {"kind": "search", "job": job})
        assert answer.status_code == 422, answer.text[:300]
        assert len(answer.text) < 2000
    broken = '{"kind": "search", "job": ' + "[" * 100_000  # the reader of JSON itself gives up
    answer = house.post("/jobs", content=broken, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["mend"].startswith("send one JSON")


# What is told and what is not.


def test_no_secret_is_in_a_log_an_error_or_the_audit(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = house.tokens["runner"]
    texts = [
        house.post("/session", {"token": secret, "extra": 1}, None).text,
        house.post("/session", {"token": [secret]}, None).text,
        house.post("/session", {"token": "evm_" + "y" * 300}, None).text,
        house.post("/session", {"token": "evm_quitewrong"}, None).text,
        house.get("/jobs", None, headers={"Authorization": f"Basic {secret}"}).text,
        house.get("/jobs", None, headers={"X-CSRF-Token": secret}).text,
    ]
    made = house.post("/tokens", {"name": "n", "person": "p", "role": "viewer"}, "admin")
    login = house.post("/session", {"token": secret}, None)
    texts += [house.get("/audit", "admin").text, house.get("/tokens", "admin").text]
    captured = capsys.readouterr()
    everything = "\n".join([*texts, captured.out, captured.err])
    for hidden in (
        secret,
        house.tokens["admin"],
        made.json()["secret"],
        login.json()["csrf"],
        login.cookies["evomerge_session"],
        "evm_quitewrong",
        "y" * 50,
    ):
        assert hidden not in everything


def test_every_act_is_in_the_audit_log_with_its_address(house: House) -> None:
    job = house.post("/jobs", NEW).json()["id"]
    house.post(f"/jobs/{job}/move", {"before": None})
    house.post(f"/jobs/{job}/pause")
    house.ask("DELETE", f"/jobs/{job}")
    house.post(f"/jobs/{job}/restore")
    failed = house.job(state="failed").id
    house.post(f"/jobs/{failed}/retry")
    house.post("/tokens", {"name": "n", "person": "p", "role": "viewer"}, "admin")
    house.post("/projects", {"name": "third"}, "admin")
    log_in(house, "viewer")
    acts = house.get("/audit", "admin").json()["items"]
    mine = [act for act in acts if act["address"] == "testclient"]
    assert {act["who"] for act in mine} == {"runner", "admin", "viewer"}
    tokens = {each["name"]: each["id"] for each in house.get("/tokens", "admin").json()}
    assert [act["token"] for act in mine] == [tokens[act["who"]] for act in mine]
    assert {act["act"] for act in mine if act["what"] == failed} == {"job.retry"}
    assert {act["act"] for act in mine if act["what"] != failed} == {
        *(f"job.{act}" for act in ("submit", "pause", "reorder", "delete", "restore")),
        *("token.make", "project.make", "session.begin"),
    }
    assert [act["what"] for act in mine if act["act"] == "job.pause"] == [job]
    some = house.get("/audit", "admin", params={"what": job, "limit": 2}).json()
    assert some["total"] == 5
    assert len(some["items"]) == 2


def test_a_failure_of_the_server_tells_nothing_but_its_number(
    template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    house = open_house(tmp_path / "data", template)

    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("the password is postgresql://u:hunter2@db/x")

    monkeypatch.setattr("evomerge.service.store.jobs.find", broken)
    answer = house.get("/jobs")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "hunter2" not in answer.text
    assert "RuntimeError" not in answer.text
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    [failed] = [line for line in lines if line["event"] == "request_failed"]
    assert failed["request_id"] == answer.json()["request_id"]
    assert "RuntimeError" in failed["trace"]
    assert "hunter2" not in json.dumps(lines)
    assert house.get("/session").status_code == 200
    house.database.close()


def test_every_answer_has_the_headers_of_security(house: House) -> None:
    for path, who in (("/", None), ("/health", None), (f"{API}/jobs", None), ("/nothing", None)):
        headers = house.client.get(path, headers=house.as_(who)).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


def test_an_id_of_a_request_is_taken_only_if_it_is_one(house: House) -> None:
    given = house.client.get("/health", headers={"X-Request-ID": "trace-0042"})
    assert given.headers["x-request-id"] == "trace-0042"
    made = house.client.get("/health", headers={"X-Request-ID": b'a"}\nfake: line'})
    assert re.fullmatch(r"[0-9a-f]{16}", made.headers["x-request-id"])


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../settings.py",
        "/static/..%2f..%2fsettings.py",
        "/static/%2e%2e/%2e%2e/settings.py",
        "/static/..\\..\\settings.py",
        "/static//etc/passwd",
        "/static/%00",
        "/static/",
    ],
)
def test_nothing_beside_the_page_is_served(house: House, path: str) -> None:
    answer = house.client.get(path)
    assert answer.status_code in (404, 405)
    assert "ServiceSettings" not in answer.text
