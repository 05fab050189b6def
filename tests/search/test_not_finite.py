"""Weights that are no numbers end a search before it begins; a merge of none ends a candidate."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from typer.testing import CliRunner

from evomerge.cli import app
from evomerge.evaluate.candidate import Candidate, CandidateKey, Failed
from evomerge.recipe import Recipe, RecipeModel
from evomerge.workers.preparation.preparation import prepare
from evomerge.workers.worker import Worker
from tests.checkpoints import load_tensors, replace_tensors
from tests.search.jobs import job_document, make_job, write_models

UP = "model.layers.1.mlp.up_proj.weight"


def put(folder: Path, value: float) -> None:
    tensor = load_tensors(folder)[UP]
    tensor[0, 0] = value
    replace_tensors(folder, {UP: tensor})


def write_adapter(folder: Path, base: Path, value: float) -> None:
    folder.mkdir()
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    down, up = torch.ones(2, 32), torch.full((32, 2), value)
    save_file(
        {f"{name}A.weight": down, f"{name}B.weight": up}, folder / "adapter_model.safetensors"
    )
    (folder / "adapter_config.json").write_text(
        f'{{"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": "{base}"}}'
    )


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_models(tmp_path)
    return tmp_path


def refusal(models: Path, command: str) -> str:
    job = models / "job.yaml"
    job.write_text(yaml.safe_dump(job_document(models)))
    arguments = {
        "search": ["search", str(job), "--run-dir", str(models / "run")],
        "evaluate": ["evaluate", str(models / "second"), str(job)],
    }
    result = CliRunner().invoke(app, arguments[command])
    assert result.exit_code == 2, result.output
    assert not (models / "run").exists()
    [line] = result.stderr.strip().splitlines()
    return line


@pytest.mark.parametrize("command", ["search", "evaluate"])
def test_a_source_with_a_nan_is_named_before_anything_begins(models: Path, command: str) -> None:
    put(models / "second", float("nan"))
    line = refusal(models, command)
    assert f"{models / 'second'}: {UP} in model.safetensors holds NaN" in line


def test_an_adapter_with_a_nan_is_named_too(models: Path) -> None:
    shutil.rmtree(models / "second")
    write_adapter(models / "second", models / "base", float("nan"))
    line = refusal(models, "search")
    assert f"{models / 'second'}: base_model.model.model.layers.0.self_attn.q_proj.lora_B" in line
    assert "holds NaN" in line


def test_a_candidate_that_float16_cannot_hold_fails_by_its_tensor(models: Path) -> None:
    put(models / "second", 1e5)
    compute = {"device": "cpu", "dtype": "float16"}
    preparation = prepare(make_job(models, compute=compute))
    worker = Worker(preparation, device="cpu")
    items = {"sums_choice": preparation.suite.items("sums_choice", "search")[:2]}
    for weight, fails in ((1.0, True), (0.1, False)):
        recipe = Recipe(
            merge_method="task_arithmetic",
            base_model=str(models / "base"),
            models=(RecipeModel(model=str(models / "second"), parameters={"weight": weight}),),
            out_dtype="float16",
        )
        outcome = worker.evaluate(
            Candidate(key=CandidateKey(1, 0), kind="genome", label="x", recipe=recipe, items=items)
        )
        assert isinstance(outcome, Failed) is fails, outcome
        if isinstance(outcome, Failed):
            assert outcome.reason.startswith(f"{UP}: infinity, as {models / 'second'} has 1e+05")
