"""Every tracker of evomerge, run for real: what a search logs, read back from where it is kept."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import evomerge
from evomerge.search.events import Event, Note
from evomerge.study import read_study
from tests.track import killed
from tests.track.logs import Row, steps, tensorboard_rows, wandb_rows

LARGER = {"budget.candidates": 20}


def wanted(run_dir: Path) -> tuple[list[float], list[tuple[float, float]]]:
    """Scores of the candidates, and (best, mean) of the generations, by the record."""
    with read_study(run_dir) as study:
        genomes = study.trials_of("genome")
    scores = [trial.score for trial in genomes if trial.score is not None]
    assert len(scores) == len(genomes)
    generations: dict[int, list[float]] = {}
    for trial, score in zip(genomes, scores, strict=True):
        generations.setdefault(trial.key.generation, []).append(score)
    return scores, [(max(found), math.fsum(found) / len(found)) for found in generations.values()]


def check_rows(rows: list[Row], run_dir: Path) -> None:
    """Every candidate and generation once, in order, with the values of the record."""
    scores, generations = wanted(run_dir)
    assert steps(rows, "candidate/number") == [*range(1, len(scores) + 1)]
    assert steps(rows, "generation/number") == [*range(1, len(generations) + 1)]
    candidates = [row for row in rows if "candidate/number" in row]
    assert [row["candidate/score"] for row in candidates] == pytest.approx(scores)
    best = [max(scores[: n + 1]) for n in range(len(scores))]
    assert [row["candidate/best"] for row in candidates] == pytest.approx(best)
    points = [row for row in rows if "generation/number" in row]
    assert [row["generation/best"] for row in points] == pytest.approx([b for b, _ in generations])
    assert [row["generation/mean"] for row in points] == pytest.approx([m for _, m in generations])
    with read_study(run_dir) as study:
        soup = next(t for t in study.trials_of("baseline") if t.label == "uniform soup")
        best_trial = max(
            (t for t in study.trials_of("genome") if t.key.generation == 1),
            key=lambda t: t.score or 0.0,
        )
    first = points[0]
    assert first["task_sums_choice.acc/uniform_soup"] == pytest.approx(
        soup.means["sums_choice"]["acc"]
    )
    assert first["task_sums_choice.acc/best"] == pytest.approx(
        best_trial.means["sums_choice"]["acc"]
    )
    found = {
        name.partition("/")[2]: value
        for name, value in first.items()
        if name.startswith("coefficient_best/")
    }
    genes = {re.sub(r"[^\w.\-]+", "_", n).strip("_"): v for n, v in best_trial.parameters.items()}
    assert found == pytest.approx(genes)
    assert first["cost/candidates"] == 4


def search_and_resume(document: Any, run_dir: Path, track: Any) -> list[str]:
    """A search, and its continuation with a larger budget; the notes."""
    notes: list[str] = []

    def watch(event: Event) -> None:
        if isinstance(event, Note) and "--track" in event.text:
            notes.append(event.text)

    evomerge.search(document, run_dir, observe=watch, track=track)
    evomerge.resume(run_dir, set=LARGER, observe=watch, track=track)
    evomerge.resume(run_dir, observe=watch, track=track)  # there is nothing new
    return notes


def killed_and_resumed(document: Any, run_dir: Path, track: Any) -> None:
    """A search that is killed after its sixth candidate, and resumed to its end.

    In a process of its own, because libraries of trackers share a service with their children.
    """
    root = Path(evomerge.__file__).parents[1]
    unserved = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    file = Path(__file__).with_name("killed.py")
    done = subprocess.run(
        [sys.executable, str(file), json.dumps(document), str(run_dir), track],
        env={**unserved, "PYTHONPATH": str(root)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    evomerge.resume(run_dir, track=track)


def test_tensorboard_shows_a_resumed_search_as_one(document: Any, tmp_path: Path) -> None:
    assert search_and_resume(document, tmp_path / "run", "tensorboard") == []
    rows = tensorboard_rows(tmp_path / "run" / "tensorboard")
    check_rows(rows, tmp_path / "run")
    result = evomerge.open_run(tmp_path / "run")
    texts = {tag: text for row in rows for tag, text in row.items() if isinstance(text, str)}
    assert texts["outcome/headline/text_summary"] == result.headline
    assert result.winner.recipe.to_yaml() in texts["outcome/recipe_winner/text_summary"]
    assert "candidates: 12" in texts["job/text_summary"]
    gains = [row["outcome/gain"] for row in rows if "outcome/gain" in row]
    assert result.gain is not None
    assert gains[-1] == pytest.approx(result.gain.value)
    assert len(gains) == 2, "one for each outcome, and none for the same again"


def test_tensorboard_goes_on_after_a_kill_without_a_step_twice(
    document: Any, tmp_path: Path
) -> None:
    child = os.fork()
    if child == 0:
        killed.search(document, tmp_path / "run", "tensorboard")
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    evomerge.resume(tmp_path / "run", track="tensorboard")
    check_rows(tensorboard_rows(tmp_path / "run" / "tensorboard"), tmp_path / "run")


def test_tensorboard_writes_again_what_a_kill_cut_short(document: Any, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    evomerge.search(document, run_dir, track="tensorboard")
    (file,) = (run_dir / "tensorboard").iterdir()
    content = file.read_bytes()
    events = tensorboard_rows(run_dir / "tensorboard")
    last = next(n for n, row in enumerate(events, start=1) if row.get("candidate/number") == 9.0)
    file.write_bytes(content[: size_of(content, last) + 30])
    (run_dir / "tracker-tensorboard.json").unlink()
    evomerge.resume(run_dir, track="tensorboard")
    file.write_bytes(content[: size_of(content, last)])
    os.utime(file, (0, 0))  # it is the older one
    check_rows(tensorboard_rows(run_dir / "tensorboard"), run_dir)


def size_of(content: bytes, events: int) -> int:
    """The bytes of the first events of a file, and of the file's version before them."""
    size = 0
    for _ in range(events + 1):
        size += 16 + int.from_bytes(content[size : size + 8], "little")
    return size


def test_a_folder_of_ones_own_gets_the_whole_search(document: Any, tmp_path: Path) -> None:
    evomerge.search(document, tmp_path / "run", track="tensorboard")
    evomerge.resume(tmp_path / "run", set=LARGER, track=f"tensorboard:dir={tmp_path / 'all'}")
    check_rows(tensorboard_rows(tmp_path / "all" / "sums"), tmp_path / "run")
    assert steps(tensorboard_rows(tmp_path / "run" / "tensorboard"), "candidate/number")[-1] == 12


def test_trackers_do_not_change_a_search(document: Any, tmp_path: Path) -> None:
    plain = evomerge.search(document, tmp_path / "plain")
    tracked = evomerge.search(document, tmp_path / "tracked", track=["tensorboard"])
    assert plain.winner == tracked.winner
    jobs = [(tmp_path / name / "job.yaml").read_text() for name in ("plain", "tracked")]
    assert jobs[0] == jobs[1]


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.needs("wandb")
@pytest.mark.usefixtures("_offline")
def test_wandb_shows_a_resumed_search_as_one(document: Any, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert search_and_resume(document, run_dir, {"wandb": {"mode": "offline"}}) == []
    rows, summary, ids = wandb_rows(run_dir / "wandb")
    check_rows(rows, run_dir)
    result = evomerge.open_run(run_dir)
    assert len(ids) >= 2
    assert len(set(ids)) == 1
    assert summary["headline"] == result.headline
    assert summary["recipe_winner"] == result.winner.recipe.to_yaml()
    assert result.gain is not None
    assert summary["outcome/gain_low"] == pytest.approx(result.gain.low)


@pytest.mark.needs("wandb")
@pytest.mark.usefixtures("_offline")
def test_wandb_goes_on_after_a_kill_without_a_step_twice(document: Any, tmp_path: Path) -> None:
    killed_and_resumed(document, tmp_path / "run", "wandb:mode=offline")
    check_rows(wandb_rows(tmp_path / "run" / "wandb")[0], tmp_path / "run")


@pytest.mark.needs("wandb")
@pytest.mark.usefixtures("_offline")
def test_wandb_without_a_key_is_refused_before_any_work(
    document: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(evomerge.InputError, match="there is no API key; run `wandb login`"):
        evomerge.search(document, tmp_path / "run", track="wandb")
    assert not (tmp_path / "run").exists()


def mlflow_rows(uri: str) -> tuple[list[Row], Any]:
    """Rows by step and axis of the only run, and the run."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    (experiment,) = client.search_experiments(filter_string="name = 'evomerge'")
    (run,) = client.search_runs([experiment.experiment_id])
    rows: dict[tuple[bool, int], dict[str, float]] = {}
    for name in run.data.metrics:
        if name.startswith("outcome/"):
            continue
        for entry in client.get_metric_history(run.info.run_id, name):
            row = rows.setdefault((name.startswith("candidate/"), entry.step), {})
            assert name not in row, f"{name} has step {entry.step} twice"
            row[name] = entry.value
    return [rows[key] for key in sorted(rows)], run


@pytest.mark.needs("mlflow")
def test_mlflow_shows_a_resumed_search_as_one(
    document: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert search_and_resume(document, tmp_path / "run", f"mlflow:uri={uri}") == []
    rows, run = mlflow_rows(uri)
    check_rows(rows, tmp_path / "run")
    result = evomerge.open_run(tmp_path / "run")
    assert run.data.tags["headline"] == result.headline
    assert run.info.status == "FINISHED"
    assert run.data.params["budget.candidates"] == "12"
    assert result.gain is not None
    assert run.data.metrics["outcome/gain"] == pytest.approx(result.gain.value)


@pytest.mark.needs("mlflow")
def test_mlflow_goes_on_after_a_kill_without_a_step_twice(
    document: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    killed_and_resumed(document, tmp_path / "run", f"mlflow:uri={uri}")
    check_rows(mlflow_rows(uri)[0], tmp_path / "run")


def trackio_rows(project: str) -> list[Row]:
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = SQLiteStorage.get_run_records(project)
    return list(SQLiteStorage.get_logs(project, run_id=run["id"]))


@pytest.mark.needs("trackio")
def test_trackio_shows_a_resumed_search_as_one(document: Any, tmp_path: Path) -> None:
    project = f"p{os.getpid()}-resumed"
    assert search_and_resume(document, tmp_path / "run", f"trackio:project={project}") == []
    rows = trackio_rows(project)
    check_rows(rows, tmp_path / "run")
    result = evomerge.open_run(tmp_path / "run")
    assert [row["outcome/headline"] for row in rows if "outcome/headline" in row][-1] == (
        result.headline
    )


@pytest.mark.needs("trackio")
def test_trackio_goes_on_after_a_kill_without_a_step_twice(document: Any, tmp_path: Path) -> None:
    project = f"p{os.getpid()}-killed"
    killed_and_resumed(document, tmp_path / "run", f"trackio:project={project}")
    check_rows(trackio_rows(project), tmp_path / "run")
