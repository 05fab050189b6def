"""A server whose jobs run on a Ray cluster: the trials of a search that ran here."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import evomerge
from tests.ports import free_port
from tests.search.jobs import TASKS, job_document, write_models
from tests.service.client.test_real_server import served

START_S = 120.0
ALIKE = ("candidate", "generation", "score")


@contextmanager
def cluster(folder: Path, token: Path) -> Iterator[str]:
    """The address of a cluster of one node, with a token, on the loopback."""
    port = free_port()
    scripts = "from ray.scripts.scripts import main; main()"
    command = [sys.executable, "-c", scripts, "start", "--head", "--block", f"--port={port}"]
    command += ["--node-ip-address=127.0.0.1", "--num-cpus=2", "--include-dashboard=false"]
    command += ["--object-store-memory=100000000", f"--temp-dir={folder}"]
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    head = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
                break
            except OSError:
                assert head.poll() is None and time.monotonic() < until
                time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(60)


def test_the_jobs_of_a_server_run_on_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: bool
) -> None:
    if not faults:
        pytest.skip("a cluster of its own takes long; --faults starts it")
    write_models(tmp_path / "models")
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    short = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets have short names
    allowed = ("--allow-source", str(tmp_path / "models"), "--allow-task", str(TASKS))
    document = job_document(
        tmp_path / "models", budget={"candidates": 12}, compute={"device": "cpu", "workers": 2}
    )
    try:
        with cluster(short, token) as address:
            monkeypatch.setenv("RAY_AUTH_MODE", "token")
            monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
            options = ("--port", "0", *allowed, "--ray-address", address)
            with served(tmp_path / "data", *options) as (_, lines):
                server = evomerge.connect(lines[-1].removeprefix("listening on "), token=lines[1])
                result = server.search(document).result()
                there, headline = result.trials_dataframe(), result.headline
                server.close()
    finally:
        shutil.rmtree(short, ignore_errors=True)
    here = evomerge.search({**document, "compute": {"device": "cpu"}}, tmp_path / "here")
    wanted = here.trials_dataframe()[list(ALIKE)]
    assert there[list(ALIKE)].equals(wanted)
    assert headline == here.headline
    assert token.read_text() not in (tmp_path / "server.log").read_text()
