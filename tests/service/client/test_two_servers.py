"""Two server processes on one PostgreSQL database and one data folder."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

import evomerge
from evomerge.search import CandidateDone, Finished
from evomerge.service.client.job import StateChanged
from evomerge.service.settings import DATABASE_FILE
from tests.postgres import PASSWORD, Server
from tests.search.jobs import TASKS, job_document, write_models
from tests.service.client.test_real_server import STOP_S, served


def test_what_is_submitted_to_one_server_runs_on_the_other_and_is_seen_on_both(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    faults: bool,
) -> None:
    if not faults:
        pytest.skip("two servers and a search take long; --faults starts them")
    postgres: Server = request.getfixturevalue("postgres")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    write_models(tmp_path / "models")
    options = (
        *("--port", "0", "--database", postgres.make("two_servers")),
        *("--allow-source", str(tmp_path / "models"), "--allow-task", str(TASKS)),
    )
    data = tmp_path / "data"
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        # Both find a database without tables, at the same time.
        starts = [
            threads.submit(stack.enter_context, served(data, *options, "--slots", slots))
            for slots in ("0", "1")
        ]
        (front, front_lines), (worker, worker_lines) = [start.result() for start in starts]
        printed = [*front_lines[:-1], *worker_lines[:-1]]
        assert len(printed) == 2, "one of them makes a token, and prints it once"
        token = printed[1]
        urls = [lines[-1].removeprefix("listening on ") for lines in (front_lines, worker_lines)]
        here, there = (stack.enter_context(evomerge.connect(url, token=token)) for url in urls)

        job = here.search(job_document(tmp_path / "models", budget={"candidates": 8}))
        watched = list(there.job(job.id).watch())
        states = [event.state for event in watched if isinstance(event, StateChanged)]
        assert states == ["queued", "starting", "running", "succeeded"]
        assert sum(isinstance(event, Finished) for event in watched) == 1
        assert list(job.watch()) == watched

        result = job.result()
        run = evomerge.open_run(data / "runs" / job.id)
        done = [str(event.candidate) for event in watched if isinstance(event, CandidateDone)]
        assert sorted(done) == sorted(run.trials_dataframe()["candidate"])
        assert result.headline == there.job(job.id).result().headline == run.headline

        for server in (front, worker):
            server.send_signal(signal.SIGTERM)
            assert server.wait(STOP_S) == 0
    assert not (data / DATABASE_FILE).exists()
    log = (tmp_path / "server.log").read_text()
    assert token not in log
    assert PASSWORD not in log
    assert "Traceback" not in log
