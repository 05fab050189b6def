"""What a job asks of this machine is refused in one line before anything is started."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from evomerge.cli import app
from evomerge.errors import JobError, SourceError
from evomerge.evaluate.engines.vllm.start import SERVED, check_served
from evomerge.job import ComputeSpec
from evomerge.route.architectures import BLOCKS
from evomerge.study import create_study
from evomerge.workers.pool_choice import check_workers, open_pool
from evomerge.workers.preparation.preparation import prepare
from evomerge.workers.vllm_models import check_job
from tests.architectures import save_architecture
from tests.checkpoints import word_tokenizer
from tests.route.routes import change_config
from tests.search.jobs import ROUTES, job_document, make_job, write_models


def test_an_engine_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    compute = ComputeSpec(engine="vllm", workers=1, device="cpu")
    with pytest.raises(JobError, match=r"^compute.engine: vllm is not installed; install the extr"):
        check_workers(compute)
    check_workers(compute.model_copy(update={"engine": "auto"}))


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vllm is installed")
def test_a_pool_is_not_opened_without_the_engine(tmp_path: Path) -> None:
    write_models(tmp_path)
    job = make_job(tmp_path, compute={"engine": "vllm", "device": "cpu"})
    with pytest.raises(JobError, match="vllm is not installed"):
        open_pool(prepare(job))


@pytest.mark.parametrize("kind", ["GPT2LMHeadModel", "Qwen3MoeForCausalLM", "LlavaForCausalLM"])
def test_a_class_that_was_never_held_to_transformers_is_refused(kind: str) -> None:
    with pytest.raises(SourceError, match=f"models/base: a {kind} is not among the models"):
        check_served(kind, device="cpu", where="models/base")


def test_routes_can_be_folded_in_every_class_that_is_served() -> None:
    assert set(SERVED) <= set(BLOCKS)


def test_routes_through_layers_of_several_kinds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evomerge.workers.vllm_models.check_served", lambda *given, **named: None)
    for name in ("base", "first", "second"):
        save_with_words(tmp_path / name, "qwen3")
        kinds = ["full_attention", "sliding_attention", "full_attention"]
        change_config(
            tmp_path / name,
            {"layer_types": kinds, "sliding_window": 6, "use_sliding_window": True},
        )
    compute = {"engine": "vllm", "device": "cpu"}
    check_job(prepare(make_job(tmp_path, compute=compute)), device="cpu")
    routes = prepare(make_job(tmp_path, compute=compute, search_space=ROUTES))
    with pytest.raises(SourceError, match="layers are of several kinds, and vllm fixes the kind"):
        check_job(routes, device="cpu")


def test_a_limit_that_a_model_sets_its_own_answers_is_refused_where_it_is_not_heeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evomerge.workers.vllm_models.check_served", lambda *given, **named: None)
    write_models(tmp_path)
    limited = json.dumps({"max_new_tokens": 5})
    (tmp_path / "second" / "generation_config.json").write_text(limited)
    compute = {"engine": "vllm", "device": "cpu"}
    chosen = [{"task": "sums_choice", "metric": "acc"}]
    limit = r"second/generation_config.json: max_new_tokens: 5 is not"
    check_job(prepare(make_job(tmp_path, compute=compute, objectives=chosen)), device="cpu")
    with pytest.raises(SourceError, match=limit):
        check_job(prepare(make_job(tmp_path, compute=compute)), device="cpu")


def save_with_words(folder: Path, name: str) -> None:
    """A random checkpoint with a row for every word of the tokenizer that is saved with it."""
    tokenizer = word_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(save_architecture(folder, name))
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 2, result.output
    [line] = result.stderr.strip().splitlines()
    assert result.stdout == ""
    return line


def write_unserved(folder: Path) -> Path:
    """Models of a class that is not served, and the job file of a search over them."""
    for name in ("base", "first", "second"):
        save_with_words(folder / name, "gpt2")
    job = folder / "job.yaml"
    job.write_text(yaml.safe_dump(job_document(folder)))
    return job


def test_a_search_that_is_not_served_makes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evomerge.workers.pool_choice.check_engine", lambda compute: None)
    job, run_dir = write_unserved(tmp_path), tmp_path / "run"
    line = refusal("search", str(job), "--run-dir", str(run_dir), "--set", "compute.engine=vllm")
    assert "a GPT2LMHeadModel is not among the models that vllm" in line
    assert not run_dir.exists()


def test_a_resume_that_is_not_served_leaves_the_job_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evomerge.workers.pool_choice.check_engine", lambda compute: None)
    write_unserved(tmp_path)
    with create_study(tmp_path / "run", make_job(tmp_path)):
        pass
    before = (tmp_path / "run" / "job.yaml").read_bytes()
    line = refusal("resume", str(tmp_path / "run"), "--set", "compute.engine=vllm")
    assert "a GPT2LMHeadModel is not among the models that vllm" in line
    assert (tmp_path / "run" / "job.yaml").read_bytes() == before
