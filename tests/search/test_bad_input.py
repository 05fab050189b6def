"""Bad input gets one clear line and exit code 2, before anything expensive begins."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from evomerge.cli import app
from evomerge.errors import WorkerError
from evomerge.search import run
from evomerge.study import create_study
from tests.checkpoints import save_tiny_llama
from tests.processes import begin
from tests.search.jobs import job_document, make_job, write_models

Change = dict[str, Any]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    save_tiny_llama(folder / "deeper", seed=5, layers=3)
    save_tiny_llama(folder / "wider", seed=5, layers=2, hidden=64)
    save_tiny_llama(folder / "truncated", seed=5, layers=2)
    weights = folder / "truncated" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    save_tiny_llama(folder / "pickled", seed=5, layers=2)
    (folder / "pickled" / "model.safetensors").rename(folder / "pickled" / "pytorch_model.bin")
    save_tiny_llama(folder / "other", seed=5, layers=2)
    config = folder / "other" / "config.json"
    said = json.loads(config.read_text())
    config.write_text(json.dumps({**said, "architectures": ["MistralForCausalLM"]}))
    return folder


def refusal(arguments: list[str]) -> str:
    """The one line that the command prints on stderr when it refuses."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.exception is None or isinstance(result.exception, SystemExit)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def search(tmp_path: Path, document: Change) -> str:
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(document))
    line = refusal(["search", str(job), "--run-dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists(), "nothing may be begun"
    return line


def with_source(models: Path, name: str) -> Change:
    return {"models": {"base": str(models / "base"), "sources": [str(models / name)]}}


def routes(**changes: Any) -> Change:
    return {"search_space": {"routes": changes}}


def staged(*, routes_first: bool = False, name: str = "parameters", **changes: Any) -> Change:
    stages = [
        {"name": name, "search_space": "one_weight_per_model"},
        {"name": "routes", "search_space": {"routes": {"repeats": 2}}},
    ]
    ordered = stages[::-1] if routes_first else stages
    return {"search_space": None, "stages": ordered, **changes}


def objective(**changes: Any) -> Change:
    return {"objectives": [{"task": "sums_choice", "metric": "acc", **changes}]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objektives": []}, ("objektives", "unknown key", "objectives")),
        ({"objectives[0]": {}}, ("objectives[0]", "unknown key", "did you mean objectives?")),
        ({"evaluation": {"split[search]": 0.5}}, ("evaluation.split[search]", "unknown key")),
        (objective(wieght=1), ("objectives.0.wieght", "unknown key", "weight")),
        ({"models": {"base": "nowhere", "sources": ["neither"]}}, ("models.base", "nowhere")),
        (objective(task="sums_choise"), ("sums_choise", "sums_choice")),
        (objective(metric="f1"), ("f1", "acc")),
        (objective(weight=0), ("objectives", "sum to 0")),
        (objective(weight=1e308), ("objectives.0.weight", "1e+308", "1000000000")),
        ({"compute": {"cache_gb": 1e308}}, ("compute.cache_gb", "1e+308", "1000000000")),
        ({"compute": {"prefix_gb": 1e308}}, ("compute.prefix_gb", "1e+308", "1000000000")),
        ({"evaluation": {"split": {"search": 0.9}}}, ("split", "add up to 1")),
        ({"evaluation": {"items_per_generation": 0}}, ("items_per_generation", "items", "auto")),
        ({"evaluation": {"growing": "maybe"}}, ("evaluation.growing: maybe: write true or false",)),
        ({"evaluation": {"finalists": "a"}}, ("evaluation.finalists: a: not a whole number",)),
        ({"budget": {}}, ("budget", "candidates")),
        ({"search_space": "per_layer_task_arithmetik"}, ("search_space", "per_layer_task_arith")),
        ({"report": ["sums_sed"]}, ("sums_sed", "sums_said")),
        ({"optimizer": {"algorithm": "cma"}}, ("optimizer.algorithm", "cma_es")),
        (routes(max_layers=1), ("search_space.routes.max_layers", "1", "2")),
        (routes(max_layers="40%"), ("search_space.routes.max_layers", "40%", "2")),
        (routes(min_layers=3, max_layers=2), ("search_space.routes", "min_layers", "max_layers")),
        (routes(models=["third"]), ("search_space.routes.models", "third", "first")),
        (
            routes(scales={"per": "layer", "low": 0.5, "high": 2}),
            ("search_space.routes.scales.per", "hop"),
        ),
        (staged(search_space="one_weight_per_model"), ("stages", "search_space")),
        (staged(name="routes"), ("stages.1.name", "routes", "taken")),
        (staged(search_space=None, routes_first=True), ("stages.0.search_space", "come last")),
        (staged(budget={"candidates": 5}), ("budget.candidates", "stage parameters", "at least")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_job_that_cannot_run_is_refused_in_one_line(
    tmp_path: Path, models: Path, changes: Change, said: tuple[str, ...]
) -> None:
    changes = json.loads(json.dumps(changes))
    document = job_document(models)
    for key, value in changes.items():
        section = document.get(key)
        merges = isinstance(section, dict) and isinstance(value, dict) and key == "evaluation"
        document[key] = {**section, **value} if merges and section else value
    line = search(tmp_path, document)
    for words in said:
        assert words in line, line


def test_an_empty_split_is_refused(tmp_path: Path, models: Path) -> None:
    document = job_document(models)
    document["evaluation"]["split"] = {"search": 0.5, "validation": 0.4999, "test": 0.0001}
    line = search(tmp_path, document)
    assert "sums_" in line
    assert "test" in line
    assert "121 items" in line


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("deeper", ("deeper", "layers", "3", "2")),
        ("wider", ("wider", "lm_head.weight", "64", "32")),
        ("other", ("other", "MistralForCausalLM", "LlamaForCausalLM")),
        ("truncated", ("truncated", "model.safetensors")),
        ("pickled", ("pickled", ".bin", "save_pretrained")),
        ("missing", ("missing", "models.sources.0")),
    ],
)
def test_a_source_that_does_not_fit_is_refused(
    tmp_path: Path, models: Path, source: str, said: tuple[str, ...]
) -> None:
    line = search(tmp_path, job_document(models, **with_source(models, source)))
    for words in said:
        assert words in line, line


@pytest.mark.parametrize("text", ["name: [", "- a list", "\xff\xfe", "name: \x00"])
def test_a_job_that_is_not_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    job = tmp_path / "job.yaml"
    job.write_bytes(text.encode("latin-1"))
    assert "job.yaml" in refusal(["search", str(job)])


def test_a_job_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "nowhere.yaml" in refusal(["search", str(tmp_path / "nowhere.yaml")])


@pytest.mark.parametrize("command", ["resume", "status", "report"])
def test_a_folder_without_a_search_is_refused(tmp_path: Path, command: str) -> None:
    assert "no search here" in refusal([command, str(tmp_path)])


def hold(run_dir: Path, models: Path) -> None:
    with create_study(run_dir, make_job(models)):
        print("held", flush=True)
        signal.pause()


@pytest.fixture
def held_run(tmp_path: Path, models: Path) -> Iterator[Path]:
    """A run directory that another process owns."""
    run_dir = tmp_path / "held"
    with begin(hold, run_dir, models) as begun:
        assert begun.said.readline() == "held\n"
        yield run_dir


def test_a_second_process_on_the_same_run_is_refused(held_run: Path) -> None:
    line = refusal(["resume", str(held_run)])
    assert "another process" in line


def test_a_second_search_in_the_same_directory_is_refused(
    held_run: Path, tmp_path: Path, models: Path
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(job_document(models)))
    line = refusal(["search", str(job), "--run-dir", str(held_run)])
    assert "evomerge resume" in line


@pytest.mark.parametrize("url", ["somewhere", "nosuch://host/database"])
def test_a_storage_that_cannot_be_opened_is_refused(tmp_path: Path, models: Path, url: str) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(job_document(models, storage=url)))
    line = refusal(["search", str(job), "--run-dir", str(tmp_path / "run")])
    assert f"storage: {url}" in line
    assert not (tmp_path / "run" / "job.yaml").exists()


def test_workers_that_cannot_be_had_leave_nothing(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise WorkerError("--ray-address here: no cluster answers")

    monkeypatch.setattr(run, "open_job_pool", refuse)
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(job_document(models)))
    mine = tmp_path / "mine"  # a folder that was there stays, and so does what lies in it
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    for run_dir in (tmp_path / "runs" / "run", mine):
        result = CliRunner().invoke(app, ["search", str(job), "--run-dir", str(run_dir)])
        assert result.exit_code == 2
        said = result.stderr.splitlines()[-1]
        assert "no cluster answers; nothing was started" in said
        assert "resume" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.yaml", "mine"]
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]
