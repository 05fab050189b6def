"""Evaluation, calibration and verification on a cluster of three nodes give what they give here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import evomerge
from evomerge.errors import JobError, WorkerError
from tests.calibrate.conftest import write_words
from tests.clusters import Cluster, cluster
from tests.processes import ROOT
from tests.search.jobs import job_document, write_models

CALIBRATION: dict[str, Any] = {"sequences": 4, "tokens": 12}
COMMAND = "from evomerge.cli import main; main()"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def workers_of(nodes: Cluster) -> list[psutil.Process]:
    """The processes that work for a command, on all nodes."""
    heads = [psutil.Process(each.pid) for each in nodes._nodes if each.poll() is None]
    below = {child for head in heads for child in head.children(recursive=True)}
    return [child for child in below if child.name().startswith("ray::_Actor")]


def until(question: Any, *, limit_s: float = 120.0) -> Any:
    end_s = time.monotonic() + limit_s
    while not (answer := question()):
        assert time.monotonic() < end_s
        time.sleep(0.05)
    return answer


def command(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_all_that_runs_on_a_cluster_gives_what_it_gives_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: bool
) -> None:
    if not faults:
        pytest.skip("a cluster of its own takes long; --faults starts it")
    write_models(tmp_path / "models")
    text = write_words(tmp_path / "words.txt", count=400)
    document = job_document(
        tmp_path / "models", budget={"candidates": 8}, compute={"device": "cpu"}
    )
    found = evomerge.search(document, tmp_path / "run")
    first, second = (tmp_path / "models" / name for name in ("first", "second"))
    here = evomerge.evaluate(first, document)
    evomerge.calibrate([first, second], text, tmp_path / "here", **CALIBRATION)
    stated = found.export(tmp_path / "exported", verify=True)
    with cluster(tmp_path, monkeypatch) as nodes:
        for count in (2, 3):  # both at once may be too much for a busy machine
            nodes.add()
            nodes.wait(count)
        there = {"ray_address": nodes.address}
        assert evomerge.evaluate(first, document, **there).to_json() == here.to_json()
        evomerge.calibrate([first, second], text, tmp_path / "there", **CALIBRATION, **there)
        assert contents(tmp_path / "there") == contents(tmp_path / "here")
        report = found.export(tmp_path / "out", verify=True, **there)
        assert report.verification == stated.verification
        assert evomerge.check(document, timing=False, **there).memory.node.startswith("127.0.0.")
        with pytest.raises(JobError, match=r"^--device: cuda: no machine of the cluster at"):
            evomerge.calibrate(first, text, tmp_path / "no", device="cuda", **CALIBRATION, **there)
        until(lambda: not workers_of(nodes))
        _loses_a_process(nodes, [first, second], text, tmp_path / "lost")
        _is_interrupted(nodes, [first, second], text, tmp_path / "cut")
        _refuses_a_token(nodes, first, text, tmp_path)
        assert not (tmp_path / "no").exists()


def _loses_a_process(nodes: Cluster, models: list[Path], text: Path, out: Path) -> None:
    """One that dies while the second model is read: the first one's files stay, and no other."""
    killed: list[psutil.Process] = []

    def kill(label: str, done: int, count: int) -> None:
        if label.startswith("second") and not killed:
            killed.extend(workers_of(nodes))
            for process in killed:
                process.kill()

    with pytest.raises(WorkerError, match=r"^the process on the node 127\.0\.0\..* is gone"):
        evomerge.calibrate(
            models, text, out, progress=kill, ray_address=nodes.address, **CALIBRATION
        )
    assert len(killed) == 1
    assert {name.split("-")[0] for name in contents(out)} == {"first"}


def _is_interrupted(nodes: Cluster, models: list[Path], text: Path, out: Path) -> None:
    options = ("--tokens", 4, "--ray-address", nodes.address)
    running = command("calibrate", *models, "--text", text, "--out", out, *options)
    until(lambda: out.exists() and any(out.glob("*.safetensors")))
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=120)[1]
    assert (running.returncode, said) == (130, "Interrupted.\n")
    assert all(name.endswith(".safetensors") for name in contents(out))
    assert not any(name.startswith(".") for name in contents(out))
    until(lambda: not workers_of(nodes))


def _refuses_a_token(nodes: Cluster, model: Path, text: Path, folder: Path) -> None:
    wrong = folder / "wrong"
    wrong.write_text("0" * 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(wrong))
        running = command(
            *("calibrate", model, "--text", text, "--out", folder / "no"),
            *("--ray-address", nodes.address),
        )
        said = running.communicate(timeout=120)[1]
    assert running.returncode == 2
    assert said.startswith(f"evomerge: --ray-address {nodes.address}: the cluster cannot be joined")
    assert "(it refuses the token)" in said
    assert said.count("\n") == 1
