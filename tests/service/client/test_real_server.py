"""A server process with real searches: watched over a restart, exported, downloaded, checked."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import evomerge
from evomerge.search import CandidateDone, Finished, GenerationDone
from evomerge.service.client.job import StateChanged
from evomerge.service.http.server import open_existing
from evomerge.service.settings import ServiceSettings
from evomerge.service.store import jobs
from tests.search.jobs import TASKS, job_document, write_models
from tests.service.runner.servers import wait
from tests.service.webhooks.receiver import Receiver, in_a_thread, is_signed

ROOT = Path(evomerge.__file__).parents[1]
STOP_S = 60.0


@contextmanager
def served(data: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A server process, and the lines that it printed until it listened."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from evomerge.cli import main; main()", "serve", str(data)]
    with (data.parent / "server.log").open("a") as log:
        server = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
    try:
        assert server.stdout is not None
        lines = []
        for line in server.stdout:
            lines.append(line.strip())
            if line.startswith("listening on "):
                break
        else:
            raise AssertionError((data.parent / "server.log").read_text())
        yield server, lines
    finally:
        if server.poll() is None:
            server.terminate()
        server.wait(STOP_S)
        assert server.stdout is not None
        server.stdout.close()


@pytest.fixture
def close() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_a_search_is_watched_told_exported_and_downloaded_over_a_restart(
    tmp_path: Path, close: ExitStack
) -> None:
    write_models(tmp_path / "models")
    allowed = [
        *("--allow-source", str(tmp_path / "models"), "--allow-task", str(TASKS)),
        *("--allow-webhooks", "127.0.0.1", "--allow-http-webhooks"),
    ]
    data = tmp_path / "data"
    told = close.enter_context(in_a_thread(Receiver()))
    with served(data, "--port", "0", *allowed) as (first, lines):
        secret = lines[1]
        url = lines[-1].removeprefix("listening on ")
        server = evomerge.connect(url, token=secret)
        webhook = server.make_webhook(told.url)
        job = server.search(job_document(tmp_path / "models", budget={"candidates": 8}))
        events = []
        watching = job.watch()
        for event in watching:
            events.append(event)
            if isinstance(event, CandidateDone):
                break
        first.send_signal(signal.SIGTERM)  # while the stream is open
        assert first.wait(STOP_S) == 0
    port = url.rpartition(":")[2]
    with served(data, "--port", port, *allowed) as (_, lines):
        assert len(lines) == 1, "a token is made once"
        events += list(watching)
        result = job.result()

        done = [str(event.candidate) for event in events if isinstance(event, CandidateDone)]
        assert len(done) == len(set(done))
        states = [event.state for event in events if isinstance(event, StateChanged)]
        assert states == ["queued", "starting", "running", "succeeded"]
        assert [type(event) for event in events].count(Finished) == 1
        assert any(isinstance(event, GenerationDone) for event in events)

        here = evomerge.open_run(data / "runs" / job.id)
        assert sorted(done) == sorted(here.trials_dataframe()["candidate"])
        assert result.headline == here.headline
        assert result.gain == here.gain
        assert result.verdict == here.verdict
        assert result.winner == here.winner
        assert result.scores().equals(here.scores())
        assert result.trials_dataframe().equals(here.trials_dataframe())
        assert result.recipe() == here.winner.recipe

        out = tmp_path / "merged"
        report = result.export(out)
        assert (report.out, report.label) == (out, here.winner.label)
        [export] = server.jobs(parent=job.id)
        kept = data / "exports" / export.id
        names = {path.name for path in kept.iterdir() if not path.name.startswith(".")}
        assert names == {path.name for path in out.iterdir()}
        assert {"model.safetensors", "recipe.yaml", "README.md"} <= names
        for name in names:
            digests = [hashlib.sha256((at / name).read_bytes()).digest() for at in (kept, out)]
            assert digests[0] == digests[1]
        assert result.report(tmp_path / "report.html").read_text().startswith("<!doctype html>")

        wait(lambda: webhook.refresh().facts["waiting"] == 0)
        assert webhook.secret is not None
        assert all(is_signed(each, webhook.secret) for each in told.received)
        found = {each.headers["webhook-id"]: each.document for each in told.received}
        of = [(each["type"], each["data"]["id"]) for each in found.values()]
        moves = ("job.queued", "job.started")
        assert sorted(of) == sorted(
            [
                *((move, each.id) for move in moves for each in (job, export)),
                ("job.succeeded", job.id),
                ("export.succeeded", export.id),
            ]
        )
        [done] = [each for each in found.values() if each["type"] == "job.succeeded"]
        assert result.gain is not None
        assert done["data"]["result"]["gain"] == vars(result.gain)
        assert done["data"]["result"]["headline"] == result.headline
        server.close()
    with open_existing(ServiceSettings(data=data)) as database:
        project = jobs.get(database, job.id).project
    log = (tmp_path / "server.log").read_text()
    assert secret not in log
    assert webhook.secret not in log
    logged = [json.loads(line) for line in log.splitlines()]
    assert {("started", None), ("stopped", None)} <= {(e["event"], e.get("job")) for e in logged}
    for each, kind in ((job, "search"), (export, "export")):
        life = [line for line in logged if line["event"][:4] == "job_" and line["job"] == each.id]
        steps = [line["event"].removeprefix("job_") for line in life]
        assert steps[:3] == ["queued", "claimed", "begun"]
        # The search may have ended while no server was there to tell of it.
        assert steps[3:] == ["succeeded"] or (kind == "search" and not steps[3:])
        assert {(line["kind"], line["project"]) for line in life} == {(kind, project)}
        assert life[-1]["attempt"] == 1
    assert life[-1]["seconds"] > 0.0


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0: tokens would be sent in the clear"),
        (["--tls-cert", "c.pem"], "--tls-cert: it needs --tls-key too"),
        (["--allow-webhooks", "http://a/"], "--allow-webhooks http://a/: no host and no network"),
        (["--public-url", "merge.example"], "merge.example: no URL of a server"),
        (["--allow-source", "/no/such"], "--allow-source /no/such: no such folder"),
        (
            ["--host", "no.such.host.invalid", "--behind-proxy"],
            "--host no.such.host.invalid: no address",
        ),
    ],
)
def test_a_server_that_cannot_serve_says_so_in_one_line(
    tmp_path: Path, options: list[str], line: str
) -> None:
    from typer.testing import CliRunner

    from evomerge.cli.commands import app

    answer = CliRunner().invoke(app, ["serve", str(tmp_path / "data"), *options])
    assert answer.exit_code == 2
    assert answer.stderr.startswith(f"evomerge: {line}")
    assert answer.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()
