"""A server whose jobs run on a Ray cluster: the trials of a search that ran here."""

from __future__ import annotations

from pathlib import Path

import pytest

import evomerge
from evomerge.search import CandidateDone
from tests.clusters import cluster
from tests.search.jobs import TASKS, job_document, write_models
from tests.service.client.test_real_server import served

ALIKE = ("candidate", "generation", "score")


def test_the_jobs_of_a_server_run_on_a_cluster_whose_nodes_come_and_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: bool
) -> None:
    if not faults:
        pytest.skip("a cluster of its own takes long; --faults starts it")
    write_models(tmp_path / "models")
    allowed = ("--allow-source", str(tmp_path / "models"), "--allow-task", str(TASKS))
    document = job_document(
        tmp_path / "models", budget={"candidates": 24}, compute={"device": "cpu", "workers": 3}
    )
    with cluster(tmp_path, monkeypatch) as nodes:
        lost, _ = nodes.add(), nodes.add()
        nodes.wait(3)
        options = ("--port", "0", *allowed, "--ray-address", nodes.address)
        with served(tmp_path / "data", *options) as (_, lines):
            server = evomerge.connect(lines[-1].removeprefix("listening on "), token=lines[1])
            job = server.search(document)
            done = 0
            for event in job.watch():
                done += isinstance(event, CandidateDone)
                if done == 6:
                    break
            nodes.kill(lost)
            nodes.add()
            result = job.result()
            assert "another is started in its place" in job.log()
            there, headline = result.trials_dataframe(), result.headline
            server.close()
    here = evomerge.search({**document, "compute": {"device": "cpu"}}, tmp_path / "here")
    wanted = here.trials_dataframe()[list(ALIKE)]
    assert there[list(ALIKE)].equals(wanted)
    assert headline == here.headline
    secret = (tmp_path / "token").read_text()
    assert secret not in (tmp_path / "server.log").read_text()
