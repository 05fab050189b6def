"""A server with a certificate of its own: who trusts it, who does not, and a crowd at its door."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.service.client.test_real_server import served
from tests.service.runner.servers import wait

MOST = 2
EC = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"


def certify(folder: Path) -> tuple[Path, Path, Path]:
    """Files of a new authority's certificate, of a server's certificate by it, and of its key."""
    authority, key, own_key = (folder / f"{name}.pem" for name in ("ca", "key", "ca-key"))
    server = folder / "server.pem"
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    # Without this neither is trusted from Python 3.13 on: openssl makes both of them authorities.
    signs = ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    for subject, new_key, out, more in (
        ("authority", own_key, authority, signs),
        ("server", key, server, ["-CA", str(authority), "-CAkey", str(own_key), *names, *signs]),
    ):
        made = ["openssl", "req", "-x509", *EC.split(), "-subj", f"/CN={subject}"]
        files = ["-keyout", str(new_key), "-out", str(out)]
        subprocess.run([*made, *files, *more], check=True, capture_output=True)
    return authority, server, key


def test_a_server_with_a_certificate_serves_who_trusts_it_and_no_crowd(tmp_path: Path) -> None:
    authority, certificate, key = certify(tmp_path)
    options = ("--tls-cert", str(certificate), "--tls-key", str(key), "--slots", "0")
    limit = ("--max-connections", str(MOST))
    with served(tmp_path / "data", "--port", "0", *options, *limit) as (_, lines):
        url, token = lines[-1].removeprefix("listening on "), lines[1]
        assert url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=str(authority))
        client = httpx2.Client(base_url=url, verify=trusting)
        with client:
            _is_secure(client, token)
            with pytest.raises(httpx2.ConnectError, match="certificate verify failed"):
                httpx2.get(url, verify=ssl.create_default_context())
            plain = url.replace("https://", "http://")
            with pytest.raises(httpx2.TransportError):
                httpx2.get(f"{plain}/health", trust_env=False)
            _is_crowded(client, token, trusting)
    log = (tmp_path / "server.log").read_text()
    assert "Traceback" not in log
    events = [json.loads(line) for line in log.splitlines()]
    assert {event["level"] for event in events} == {"info"}, events
    assert token not in log


def _is_secure(client: httpx2.Client, token: str) -> None:
    answer = client.post("/api/v1/session", json={"token": token})
    assert answer.status_code == 201
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-evomerge=")
    assert {"Secure", "HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    # The client sends the cookie back over TLS, and the page of this server may change things.
    assert client.get("/api/v1/session").json()["person"] == "admin"
    headers = {"X-CSRF-Token": answer.json()["csrf"], "Origin": str(client.base_url).rstrip("/")}
    project = {"name": "vision"}
    assert client.post("/api/v1/projects", json=project, headers=headers).status_code == 201
    headers["Origin"] = headers["Origin"].replace("https://", "http://")
    assert client.post("/api/v1/projects", json=project, headers=headers).status_code == 403


def _is_crowded(client: httpx2.Client, token: str, context: ssl.SSLContext) -> None:
    """More connections than the limit: a refusal that says so; and an answer once they are gone."""
    headers = {"Authorization": f"Bearer {token}"}
    address = (client.base_url.host, client.base_url.port or 0)
    with ExitStack() as crowd:
        for _ in range(MOST):
            plain = crowd.enter_context(socket.create_connection(address))
            crowd.enter_context(context.wrap_socket(plain, server_hostname=address[0]))
        refused = wait(lambda: _refused(client, headers))
        problem = refused.json()
        assert refused.headers["content-type"] == "application/problem+json"
        assert problem["detail"] == f"more than {MOST} connections are open"
        assert problem["mend"].startswith("try again in some seconds")
        assert problem["request_id"] == refused.headers["x-request-id"]
        assert refused.headers["retry-after"] == "5"
        assert refused.headers["connection"] == "close"
        assert "strict-transport-security" in refused.headers
        assert client.get("/health").status_code == 200
    wait(lambda: client.get("/api/v1/projects", headers=headers).status_code == 200)


def _refused(client: httpx2.Client, headers: dict[str, str]) -> httpx2.Response | None:
    answer = client.get("/api/v1/projects", headers=headers)
    return answer if answer.status_code == 503 else None
