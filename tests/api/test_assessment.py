"""Scoring one model: any recipe scores what stock lm-eval says of the checkpoint it makes."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from evomerge.api import assessment
from evomerge.api.assessment import evaluate_model
from evomerge.errors import SourceError, WorkerError
from evomerge.evaluate.stock import StockOptions, score_stock
from evomerge.export import merge_recipe
from evomerge.job import JobSpec
from evomerge.recipe import load_recipe
from evomerge.workers.pool import LocalPool
from evomerge.workers.preparation.fingerprints import check_alike, files_of
from evomerge.workers.preparation.preparation import pin, prepare
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.checkpoints import save_tiny_llama
from tests.evaluate.conftest import TASKS as TOYS
from tests.search.jobs import TASKS as SUMS
from tests.search.jobs import make_job, write_models

Document = dict[str, Any]

METRICS = {"sums_choice": ("acc",), "toy_choice": ("acc", "acc_norm")}
FOLDERS = (SUMS, TOYS)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def job(models: Path) -> JobSpec:
    objectives = [{"task": task, "metric": "acc"} for task in METRICS]
    folders = [str(folder) for folder in FOLDERS]
    evaluation = {"task_folders": folders, "items_per_generation": 16}
    return make_job(models, objectives=objectives, evaluation=evaluation)


@pytest.fixture(scope="module")
def preparation(job: JobSpec) -> PreparedJob:
    return prepare(pin(job))


def documents(models: Path, kind: str) -> list[Document]:
    base, first, second = (str(models / name) for name in ("base", "first", "second"))
    blend = {
        "merge_method": "ties",
        "base_model": base,
        "models": [{"model": each, "parameters": {"weight": 0.6}} for each in (first, second)],
        "parameters": {"density": 0.5},
        "dtype": "float32",
    }
    taller = {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": "blend", "layer_range": [0, 2]}]},
            {"sources": [{"model": second, "layer_range": [0, 2]}]},
        ],
        "dtype": "float32",
    }
    stretches = [
        {"model": first, "layers": [0, 2]},
        {"model": "blend", "layers": [1, 2], "scale": 1.3},
        {"model": first, "layers": [1, 2], "scale": -0.8},
    ]
    routed = {"merge_method": "passthrough", "route": stretches, "dtype": "float32"}
    named = {"name": "blend", **blend}
    return {"plain": [blend], "slices": [named, taller], "route": [named, routed]}[kind]


def scores(model: Path, job: JobSpec) -> dict[tuple[str, str], float]:
    """Of the items that there are most of."""
    summary = evaluate_model(str(model), job, split="search")
    return {
        (task, metric): interval.value
        for task, found in summary.tasks.items()
        for metric, interval in found.items()
    }


def stock_scores(model: Path, preparation: PreparedJob) -> dict[tuple[str, str], float]:
    items = {task: preparation.suite.items(task, "search") for task in METRICS}
    options = StockOptions(dtype="float32", device="cpu", batch_size=32, task_folders=FOLDERS)
    stock = score_stock(model, items, METRICS, options)
    return {
        (task, metric): found.mean(metric)
        for task, found in stock.items()
        for metric in METRICS[task]
    }


@pytest.mark.parametrize("kind", ["plain", "slices", "route"])
def test_a_recipe_and_the_model_it_makes_score_what_stock_tools_say(
    models: Path, job: JobSpec, preparation: PreparedJob, tmp_path: Path, kind: str
) -> None:
    path, out = tmp_path / "recipe.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump_all(documents(models, kind)))
    merge_recipe(load_recipe(path), out)
    expected = stock_scores(out, preparation)
    assert scores(path, job) == pytest.approx(expected)
    assert scores(out, job) == pytest.approx(expected)
    assert scores(models / "base", job) != pytest.approx(expected)


def test_a_deeper_model_of_more_words_is_scored_as_stock_tools_score_it(
    job: JobSpec, preparation: PreparedJob, tmp_path: Path
) -> None:
    odd = save_tiny_llama(tmp_path / "odd", seed=1, layers=3, vocabulary=200)
    assert scores(odd, job) == pytest.approx(stock_scores(odd, preparation))


@pytest.mark.parametrize("written", ["odd", "./odd", "alone.yaml"])
def test_a_model_is_scored_by_a_path_that_counts_from_here(
    job: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    odd = save_tiny_llama(tmp_path / "odd", seed=1, layers=2)
    alone = {"merge_method": "linear", "models": [{"model": "odd", "parameters": {"weight": 1.0}}]}
    (tmp_path / "alone.yaml").write_text(yaml.safe_dump({**alone, "dtype": "float32"}))
    monkeypatch.chdir(tmp_path)
    assert scores(Path(written), job) == scores(odd, job)
    summary = evaluate_model(written, job, split="search")
    assert summary.label == written


@pytest.mark.parametrize("written", ["odd", "blend.yaml", "models/first"])
def test_a_process_of_a_cluster_makes_the_same_model_again(
    models: Path,
    job: JobSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    written: str,
) -> None:
    save_tiny_llama(tmp_path / "odd", seed=1, layers=2)
    (tmp_path / "models").symlink_to(models)
    (tmp_path / "blend.yaml").write_text(yaml.safe_dump_all(documents(models, "plain")))
    monkeypatch.chdir(tmp_path)
    here = evaluate_model(written, job, split="search")
    asked = []

    def open_there(ready: PreparedJob, **options: Any) -> LocalPool:
        asked.append(options["ray_address"])
        made = pickle.loads(pickle.dumps(options["make"]))()
        assert files_of(made) == files_of(ready)
        return LocalPool(made)

    monkeypatch.setattr(assessment, "open_one_worker", open_there)
    monkeypatch.setattr(assessment, "check_workers", lambda *given, **named: None)
    monkeypatch.setattr(assessment, "check_models", lambda *given, **named: None)
    there = evaluate_model(written, job, split="search", ray_address="127.0.0.2:6379")
    assert asked == ["127.0.0.2:6379"]
    assert there.to_json() == here.to_json()


def test_another_model_or_task_on_a_node_is_refused(preparation: PreparedJob) -> None:
    files = files_of(preparation)
    check_alike(files, preparation)
    check_alike({}, preparation)
    [model] = [name for name in files if name.endswith("/second/model.safetensors")]
    for name in (model, "items of sums_choice"):
        with pytest.raises(WorkerError, match=f"^{re.escape(name)} is not the same as where the"):
            check_alike({**files, name: "0" * 64}, preparation)


def test_a_model_of_another_architecture_is_refused(job: JobSpec, tmp_path: Path) -> None:
    odd = save_tiny_llama(tmp_path / "odd", seed=1, layers=2)
    config = (odd / "config.json").read_text()
    (odd / "config.json").write_text(config.replace("LlamaForCausalLM", "MistralForCausalLM"))
    with pytest.raises(SourceError, match=r"odd does not fit .*: it is a MistralForCausalLM, not"):
        evaluate_model(str(odd), job, split="test")
