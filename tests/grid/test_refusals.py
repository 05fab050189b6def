"""Bad grids get one clear line and exit code 2, before anything is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from evomerge.cli import app
from evomerge.errors import WorkerError
from evomerge.grid import open_grid_study, pin_grid
from evomerge.search import run
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.grid.grids import EVOLVED, grid_document, make_grid
from tests.search.jobs import job_document
from tests.search.jobs import write_models as write_search_models


def refusal(*arguments: str) -> str:
    """The one line that the command prints on stderr when it refuses."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def held_in(**changes: str) -> list[dict[str, str]]:
    first = {"task": "sums_one", "metric": "acc", "expert": "first", **changes}
    others = [("sums_two", "second"), ("sums_three", "third")]
    rest = [{"task": task, "metric": "acc", "expert": expert} for task, expert in others]
    return [first, *rest]


def evolved(**changes: Any) -> dict[str, Any]:
    return {"methods": [{**EVOLVED, **changes}]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metods": []}, ("metods", "unknown key", "methods")),
        (
            {"methods": [{"method": "ties", "parametres": {}}]},
            ("methods.0.parametres", "parameters"),
        ),
        ({"held_in": held_in(expert="fourth")}, ("sums_one", "fourth", "first, second, third")),
        ({"held_in": held_in()[1:]}, ("no task belongs to", "first")),
        ({"held_in": held_in(task="sums_two")}, ("sums_two/acc", "twice")),
        ({"held_in": held_in(metric="f1")}, ("f1", "acc")),
        ({"held_out": [{"task": "sums_other", "metric": "f1"}]}, ("f1", "acc")),
        ({"held_out": [{"task": "sums_one", "metric": "acc"}]}, ("sums_one",)),
        ({"held_out": [{"task": "sums_wrong", "metric": "acc"}]}, ("sums_wrong", "when lower")),
        ({"methods": ["tise"]}, ("methods", "tise", "ties")),
        ({"methods": ["ties", "ties"]}, ("methods", "ties", "twice")),
        ({"methods": ["slerp"]}, ("slerp", "3 experts", "exactly 2")),
        ({"methods": [{"method": "ties", "parameters": {"densety": 1}}]}, ("ties", "densety")),
        ({"methods": [{"method": "ties", "budget": {"candidates": 9}}]}, ("budget", "no search")),
        ({"methods": [{"label": "nothing"}]}, ("methods.0", "method", "search_space")),
        (evolved(budget=None), ("budget", "missing")),
        (evolved(budget={"candidates": 3}), ("evolved of 2 experts", "budget.candidates", "4")),
        (evolved(search_space="one_wait"), ("search_space", "one_wait", "one_weight")),
        ({**evolved(), "split": "all"}, ("split", "evolved", "test")),
        ({"experts": {"sizes": [1]}}, ("experts.sizes", "1", "2 to 3")),
        ({"experts": {"subsets": 0}}, ("experts.subsets", "0")),
        ({"seeds": [0, 0]}, ("seeds", "twice")),
        ({"seeds": [-1]}, ("seeds", "-1")),
        ({"compute": {"device": "banana"}}, ("compute.device", "banana")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_grid_that_cannot_run_is_refused_in_one_line(
    tmp_path: Path, models: Path, changes: dict[str, Any], said: tuple[str, ...]
) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(grid_document(models, **changes)))
    line = refusal("grid", str(path), "--run-dir", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists(), "nothing may be begun"
    for words in said:
        assert words in line


def test_a_search_is_not_taken_for_a_grid_nor_a_grid_for_a_search(
    tmp_path: Path, models: Path
) -> None:
    (tmp_path / "models").mkdir()
    write_search_models(tmp_path / "models")
    job, grid = tmp_path / "job.yaml", tmp_path / "grid.yaml"
    job.write_text(yaml.safe_dump(job_document(tmp_path / "models")))
    grid.write_text(yaml.safe_dump(grid_document(models)))
    searched, run_dir = tmp_path / "searched", tmp_path / "run"
    searched.mkdir()
    (searched / "job.yaml").write_text(job.read_text())
    assert "holds a search" in refusal("grid", str(grid), "--run-dir", str(searched))
    run_dir.mkdir()
    (run_dir / "grid.yaml").write_text(grid.read_text())
    (run_dir / "job.yaml").write_text(job.read_text())
    for command in ("resume", "status", "report"):
        assert "holds a grid" in refusal(command, str(run_dir))
    assert "holds a grid" in refusal("export", str(run_dir), "--out", str(tmp_path / "merged"))


def test_a_strangers_grid_runs_its_code_only_where_that_is_said(
    tmp_path: Path, models: Path, prepared: PreparedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_grid_study(tmp_path / "run", pin_grid(make_grid(models)), prepared).close()
    again = ("grid", str(tmp_path / "run" / "grid.yaml"), "--run-dir", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    line = refusal(*again)
    assert "evaluation.task_folders" in line
    assert "--trust-code" in line


def test_workers_that_cannot_be_had_leave_nothing(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise WorkerError("--ray-address here: no cluster answers")

    monkeypatch.setattr(run, "open_job_pool", refuse)
    grid = tmp_path / "grid.yaml"
    grid.write_text(yaml.safe_dump(grid_document(models)))
    mine = tmp_path / "mine"  # a folder that was there stays, and so does the grid that lies in it
    mine.mkdir()
    (mine / "grid.yaml").write_text(grid.read_text())
    for file, run_dir in ((grid, tmp_path / "runs" / "run"), (mine / "grid.yaml", mine)):
        result = CliRunner().invoke(app, ["grid", str(file), "--run-dir", str(run_dir)])
        assert result.exit_code == 2
        assert "no cluster answers; nothing was started" in result.stderr.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.yaml", "mine"]
    assert [path.name for path in mine.iterdir()] == ["grid.yaml"]
