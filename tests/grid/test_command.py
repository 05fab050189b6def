"""`evomerge grid` as a user runs it, on real tiny models."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from evomerge.cli import app
from evomerge.evaluate.candidate import CandidateKey
from evomerge.grid import GridOutcome
from evomerge.grid.tables import grid_lines
from evomerge.study import read_study
from tests.grid.grids import grid_document
from tests.processes import begin, command

SMALL = {"methods": ["linear", "dare_ties"], "experts": {"sizes": [2, 3], "subsets": 1}}


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


@pytest.fixture(scope="module")
def file(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("command") / "grid.yaml"
    path.write_text(yaml.safe_dump(grid_document(models, **SMALL)))
    return path


@pytest.fixture(scope="module")
def done(file: Path) -> tuple[Path, Result]:
    """A finished grid and what the command said."""
    run_dir = file.parent / "run"
    return run_dir, run("grid", str(file), "--run-dir", str(run_dir))


def test_a_grid_says_what_it_costs_then_shows_its_table(done: tuple[Path, Result]) -> None:
    run_dir, result = done
    assert result.exit_code == 0, result.output
    with read_study(run_dir) as study:
        scored = sum(trial.item_count for trial in study.trials_of("cell"))
    # Base and experts, then two subsets with a soup and DARE-TIES of two seeds.
    assert f"10 models to score on {scored:,} items" in result.stderr
    head, *rows = result.stdout.splitlines()[:5]
    assert head.split() == ["method", "experts", "merges", "held-in", "±", "held-out", "±"]
    assert [row.split()[:3] for row in rows if row.startswith("DARE")] == [
        ["DARE-TIES", "2", "2"],
        ["DARE-TIES", "3", "2"],
    ]
    assert "\x1b" not in result.stderr


def test_running_it_again_scores_nothing_and_says_the_same(
    done: tuple[Path, Result], file: Path
) -> None:
    run_dir, first = done
    again = run("grid", str(file), "--run-dir", str(run_dir))
    assert again.stdout == first.stdout
    assert "0 models to score on 0 items; 10 taken from the record" in again.stderr
    assert run("grid", str(run_dir / "grid.yaml"), "--run-dir", str(run_dir)).stdout == first.stdout


def test_programs_get_the_same_numbers(done: tuple[Path, Result], file: Path) -> None:
    run_dir, first = done
    said = json.loads(run("grid", str(file), "--run-dir", str(run_dir), "--json").stdout)
    soup = said["rows"][0]
    assert (soup["method"], soup["experts"]) == ("uniform soup", 2)
    assert f"{soup['normalised']['held_in']['value']:.3f} [" in first.stdout.splitlines()[1]
    assert {model["role"] for model in said["models"]} == {"base", "expert", "merge"}


def test_tables_and_figures_are_in_the_run_directory(done: tuple[Path, Result]) -> None:
    run_dir, result = done
    markdown = (run_dir / "grid.md").read_text()
    row = next(line for line in result.stdout.splitlines() if line.startswith("DARE-TIES"))
    cells = [cell for cell in markdown.splitlines() if cell.startswith("| DARE-TIES | 2 |")]
    assert cells and cells[0].split(" | ")[3].strip() in row
    page = (run_dir / "grid.html").read_text()
    assert "uniform soup" in page and "Plotly" in page


def test_every_merge_can_be_built_and_scores_what_the_grid_says(
    done: tuple[Path, Result], tmp_path: Path
) -> None:
    run_dir, _ = done
    with read_study(run_dir) as study:
        keys = [str(t.key) for t in study.trials_of("cell") if t.key.generation == 1]
        trial = study.trial(CandidateKey.parse("g0001-i002"))
    assert sorted(path.stem for path in (run_dir / "recipes").iterdir()) == sorted(keys)
    out = tmp_path / "merged"
    recipe = run_dir / "recipes" / "g0001-i002.yaml"
    assert run("merge", str(recipe), "--out", str(out)).exit_code == 0
    said = run("evaluate", str(out), str(run_dir / "job.yaml"), "--json")
    tasks = json.loads(said.stdout)["tasks"]
    assert trial.means
    for task, means in trial.means.items():
        assert tasks[task]["acc"]["value"] == means["acc"]


@pytest.mark.parametrize(
    ("change", "said"), [("split=all", "split"), ("evaluation.num_fewshot=1", "evaluation")]
)
def test_what_changes_the_meaning_of_scores_is_refused(
    done: tuple[Path, Result], file: Path, change: str, said: str
) -> None:
    run_dir, _ = done
    result = run("grid", str(file), "--run-dir", str(run_dir), "--set", change)
    assert result.exit_code == 2
    assert f"the job's {said} changed" in result.stderr


def test_an_interrupted_grid_says_how_to_go_on_and_does(
    done: tuple[Path, Result], file: Path, tmp_path: Path
) -> None:
    whole, expected = done
    parts = tmp_path / "parts"
    with begin(command, "grid", str(file), "--run-dir", str(parts)) as begun:
        for line in begun.said:
            if "scored" in line:
                begun.send(signal.SIGINT)
                break
        rest = begun.said.read()
        assert begun.wait() == 130, rest
    assert f"go on with: evomerge grid {file} --run-dir {parts}" in rest
    assert "Traceback" not in rest
    again = run("grid", str(file), "--run-dir", str(parts))
    assert again.stdout.replace(str(parts), str(whole)) == expected.stdout
    assert "taken from the record" in again.stderr


def test_a_grid_without_held_out_tasks_explains_none() -> None:
    outcome = GridOutcome(
        name="grid",
        split="test",
        items={"a": 10},
        held_in={"a/acc": "first"},
        held_out=(),
        models=(),
        rows=(),
        notes=(),
    )
    assert not any(line.startswith("held-out") for line in grid_lines(outcome))
