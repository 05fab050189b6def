"""A server before it listens: its folders, its first token, its port, TLS; and its operation."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evomerge.cli.commands import app
from evomerge.errors import EvomergeError, InputError, StorageError
from evomerge.service.database.engine import open_database
from evomerge.service.http.server import check_reach, open_server
from evomerge.service.http.web_settings import WebSettings
from evomerge.service.settings import ServiceSettings
from evomerge.service.store import people
from evomerge.service.store.audit import Who
from evomerge.service.webhooks import subscriptions
from evomerge.service.webhooks.destinations import Destinations
from tests.service.http.house import URL, House

WEB = WebSettings()


def settings(data: Path, **changes: Any) -> ServiceSettings:
    return ServiceSettings(**{"data": data, "port": 0, "slots": 0, **changes})


def test_the_first_start_makes_a_project_and_one_admin_token(tmp_path: Path) -> None:
    data = tmp_path / "data"
    before = os.umask(0o022)  # others may read
    try:
        _start_twice(data)
    finally:
        os.umask(before)
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert {"runs", "exports", "logs"} <= {each.name for each in data.iterdir()}


def _start_twice(data: Path) -> None:
    with open_server(settings(data), WEB) as first:
        assert first.first_token is not None
        kept = list(data.glob("evomerge.db*"))
        assert kept and {stat.S_IMODE(file.stat().st_mode) for file in kept} == {0o600}
        token = people.token_of(first.database, first.first_token)
        assert token is not None
        assert (token.role, token.projects) == ("admin", None)
        assert [each.name for each in people.projects(first.database)] == ["default"]
        assert first.url.startswith("http://127.0.0.1:")
    with open_server(settings(data), WEB) as again:
        assert again.first_token is None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.3.2.1"])
def test_loopback_needs_no_tls(tmp_path: Path, host: str) -> None:
    check_reach(settings(tmp_path, host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "127.evil.com"])
def test_beyond_loopback_tls_or_a_proxy_is_needed(tmp_path: Path, host: str) -> None:
    with pytest.raises(InputError, match="in the clear"):
        check_reach(settings(tmp_path, host=host))
    check_reach(settings(tmp_path, host=host, behind_proxy=True))
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    check_reach(settings(tmp_path, host=host, tls_certificate=cert, tls_key=key))


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(InputError, match=f"--port {port}: cannot be taken"),
            open_server(settings(tmp_path / "data", port=port), WEB),
        ):
            pass
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with (
        pytest.raises(StorageError, match="the folder cannot be written"),
        open_server(settings(file / "data"), WEB),
    ):
        pass


def test_a_newer_database_is_one_line(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with open_server(settings(data), WEB) as server, server.database.engine.begin() as connection:
        connection.exec_driver_sql("update alembic_version set version_num = 'from tomorrow'")
    with pytest.raises(EvomergeError) as refused, open_server(settings(data), WEB):
        pass
    assert "newer" in str(refused.value)


@pytest.mark.parametrize("content", [None, b"", b"rubbish"])
def test_a_bad_certificate_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    cert = tmp_path / "cert.pem"
    if content is not None:
        cert.write_bytes(content)
    given = settings(tmp_path / "data", tls_certificate=cert, tls_key=cert)
    with pytest.raises(InputError, match="--tls-cert"), open_server(given, WEB):
        pass


def test_a_server_process_never_loads_the_large_libraries(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from evomerge.service import ServiceSettings, WebSettings, open_server\n"
        "given = ServiceSettings(data=pathlib.Path(sys.argv[1]), port=0)\n"
        "with open_server(given, WebSettings()): pass\n"
        "large = {'torch', 'transformers', 'lm_eval', 'optuna', 'ray', 'pandas', 'plotly'}\n"
        "print(sorted(large & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "data")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


# Tokens from the command line.


def test_tokens_are_made_listed_and_revoked_where_the_data_is(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with open_server(settings(data), WEB):
        pass
    run = CliRunner().invoke
    made = run(
        app,
        [
            *("token", "make", "ana", "--role", "viewer", "--project", "vision"),
            *("--days", "2", "--data", str(data)),
        ],
    )
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()
    assert secret.startswith("evm_")
    assert secret not in made.stderr
    listed = run(app, ["token", "list", "--data", str(data), "--json"])
    assert secret not in listed.stdout
    [token] = [each for each in json.loads(listed.stdout) if each["person"] == "ana"]
    assert (token["role"], token["projects"]) == ("viewer", ["vision"])
    assert (
        "  ana  viewer  vision  until " in run(app, ["token", "list", "--data", str(data)]).stdout
    )
    database = open_database(settings(data).database_url)
    for person in ("ana", "bea"):
        subscriptions.make(
            database,
            project=people.project_named(database, "vision").id,
            url="https://hooks.example.com/secret-path",
            destinations=Destinations(),
            name=f"chat of {person}",
            who=Who(name=person),
        )
    revoke = ["token", "revoke", token["id"], "--data", str(data)]
    revoked = run(app, revoke)
    assert revoked.exit_code == 0
    assert people.token_of(database, secret) is None
    assert "of vision goes on  chat of ana\n" in revoked.stdout
    assert "chat of bea" not in revoked.stdout
    assert f"evomerge token revoke {token['id']} --webhooks` deletes them" in revoked.stderr
    assert "of vision  chat of ana\n" in run(app, [*revoke, "--webhooks"]).stdout
    assert [each.owner for each in subscriptions.find_webhooks(database)] == ["bea"]
    database.close()
    for wrong, where in (("nothing", str(data)), (token["id"], "/no/such")):
        refused = run(app, ["token", "revoke", wrong, "--data", where])
        assert refused.exit_code == 2
        assert refused.stderr.count("\n") == 1


# Health, readiness, metrics, logs.


def test_health_and_readiness_need_no_token(house: House) -> None:
    assert house.client.get("/health").json()["status"] == "ok"
    ready = house.client.get("/ready")
    assert ready.status_code == 200
    assert {check["name"] for check in ready.json()["checks"]} == {"database", "supervisor", "disk"}


def test_a_server_without_its_database_is_alive_and_not_ready(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_database: object) -> None:
        raise StorageError("postgresql://u:***@db/x: cannot be reached; start it")

    monkeypatch.setattr("evomerge.service.http.routes.health.check_schema", gone)
    ready = house.client.get("/ready")
    assert ready.status_code == 503
    [failed] = [check for check in ready.json()["checks"] if not check["ok"]]
    assert failed["name"] == "database"
    assert house.client.get("/health").status_code == 200


def test_a_database_that_is_away_is_a_503_with_a_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_args: object, **_kwargs: object) -> None:
        raise StorageError("the database cannot be reached; start it")

    monkeypatch.setattr("evomerge.service.store.people.token_of", away)
    answer = house.get("/jobs")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_database_that_is_damaged_or_full_is_a_503_without_its_folder(house: House) -> None:
    assert house.get("/jobs").status_code == 200
    house.database.close()
    file = house.settings.data / "evomerge.db"
    content = file.read_bytes()
    for name in ("-wal", "-shm"):
        file.with_name(file.name + name).unlink(missing_ok=True)
    file.write_bytes(content[:200] + b"\xff" * (len(content) - 200))
    broken = house.get("/jobs")
    house.database.close()
    file.unlink()
    file.mkdir()  # a file that cannot be opened
    for answer in (broken, house.get("/jobs")):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert str(house.settings.data) not in answer.text
        assert "log" in answer.json()["detail"]


def test_metrics_count_requests_by_route_and_jobs_by_state(house: House) -> None:
    house.job(state="running")
    waiting = house.job()
    for _ in range(3):
        house.get(f"/jobs/{waiting.id}")
    assert house.client.get("/metrics").status_code == 401
    text = house.get(f"{URL}/metrics", "admin").text
    assert 'evomerge_jobs{state="running"} 1.0' in text
    assert 'evomerge_jobs{state="queued"} 1.0' in text
    assert 'route="/api/v1/jobs/{job_id}",status="200"' in text
    assert waiting.id not in text
    assert "\nevomerge_job_attempts 1.0\n" in text
    for name in ("watchers", "disk_free_bytes", "queue_oldest_seconds", "queue_wait_seconds"):
        assert f"\nevomerge_{name} " in text


def test_a_request_is_one_line_of_json(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    answer = house.get("/jobs", params={"q": "secret words"})
    house.client.get("/health")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    [line] = [each for each in lines if each["event"] == "request"]
    assert line["request_id"] == answer.headers["x-request-id"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/api/v1/jobs", 200)
    assert (line["who"], line["address"]) == ("viewer", "testclient")
    assert "secret words" not in json.dumps(lines)
    assert os.linesep not in line["path"]


def test_a_path_of_any_length_is_a_short_line(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.client.get("/" + "x" * 60000)
    assert len(capsys.readouterr().err) < 2000
