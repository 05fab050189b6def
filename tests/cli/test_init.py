"""`evomerge init`: a few answers make a short job file that a search accepts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from evomerge.cli import app
from evomerge.job import load_job
from tests.search.jobs import TASKS, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


def init(*arguments: str, answers: Sequence[str] | None = None) -> Result:
    text = None if answers is None else "\n".join(answers) + "\n"
    result = CliRunner().invoke(app, ["init", *arguments], input=text)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evomerge.cli.interview._on_terminal", lambda: True)


def given(models: Path, out: Path) -> list[str]:
    return [
        *("--out", str(out), "--base", str(models / "base"), "--source", str(models / "first")),
        *("--source", str(models / "second"), "--task", "sums_choice:acc", "--task", "sums_said"),
        *("--task-folder", str(TASKS)),
    ]


def test_options_alone_make_a_job_that_check_accepts(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "sums.yaml"
    said = init(*given(models, out), "--candidates", "60", "--goal", "balance")
    assert said.exit_code == 0, said.output
    assert said.stdout.splitlines() == [f"job: {out}", f"next: evomerge check {out}"]
    job = load_job(out)
    assert job.name == "sums"
    assert [(o.task, o.metric) for o in job.objectives] == [
        ("sums_choice", "acc"),
        ("sums_said", "exact_match"),
    ]
    assert (job.aggregate, job.budget.candidates, job.search_space) == ("geometric", 60, None)
    checked = CliRunner().invoke(app, ["check", str(out), "--no-timing"])
    assert checked.exit_code == 0, checked.output
    assert "15 generations of 4 candidates" in checked.stdout or "generations" in checked.stdout


def test_the_file_holds_what_differs_from_the_defaults(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "job.yaml"
    init(*given(models, out))
    document = yaml.safe_load(out.read_text())
    assert set(document) == {"name", "models", "objectives", "evaluation", "budget"}
    assert document["budget"] == {"candidates": 200}
    assert out.read_text().count("#") >= 5, "comments say why"
    assert len(out.read_text().splitlines()) < 20


@pytest.mark.usefixtures("terminal")
def test_questions_are_asked_until_the_answers_can_be_used(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "job.yaml"
    said = init(
        *("--out", str(out), "--task-folder", str(TASKS)),
        answers=[
            "nowhere/at/all",
            str(models / "base"),
            str(models / "first"),
            str(models / "second"),
            "",
            "sums_choise",
            "sums_choice",
            "sums_said:exact_match",
            "",
            "best",
            "front",
            "one_wait_per_model",
            "per_layer_task_arithmetic",
            "many",
            "1.5h",
            "abacus",
            "cpu",
        ],
    )
    assert said.exit_code == 0, said.output
    for problem in (
        "nowhere/at/all: no such folder",
        "did you mean sums_choice",
        "write score, balance or front",
        "did you mean one_weight_per_model",
        "write a number of candidates, as 200, or hours, as 2h",
        "abacus: write auto, cpu or cuda",
    ):
        assert problem in said.output
    job = load_job(out)
    assert job.models.sources == (str(models / "first"), str(models / "second"))
    assert (job.mode, job.search_space) == ("pareto", "per_layer_task_arithmetic")
    assert (job.budget.hours, job.budget.candidates) == (1.5, None)
    assert job.compute.device == "cpu"
    assert "sums_choice: acc" in said.output, "known tasks are offered"


def test_a_file_is_never_overwritten(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "job.yaml"
    out.write_text("mine")
    said = init(*given(models, out))
    assert said.exit_code == 2
    assert "exists already" in said.output
    assert out.read_text() == "mine"


@pytest.mark.usefixtures("terminal")
def test_answers_that_end_early_write_nothing(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "job.yaml"
    said = init("--out", str(out), answers=[str(models / "base"), str(models / "base")])
    assert f"{models / 'base'}: is the base or given already; name another" in said.output
    assert said.exit_code == 2
    assert "evomerge: the answers ended before the last question" in said.stderr
    assert not out.exists()


@pytest.mark.usefixtures("terminal")
def test_a_task_is_taken_once(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "job.yaml"
    options = ["--out", str(out), "--base", str(models / "base"), "--source", str(models / "first")]
    said = init(
        *(*options, "--task-folder", str(TASKS)),
        answers=["sums_choice", "sums_choice:acc", "", "", "50", ""],
    )
    assert said.exit_code == 0, said.output
    assert "sums_choice:acc: is given already; name another" in said.output
    assert len(load_job(out).objectives) == 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--task", "sums_said:acc"], "task sums_said: no metric acc; usable here: exact_match"),
        (["--device", "abacus"], "evomerge: --device abacus: write auto, cpu or cuda"),
        (["--task", "sums_chois:acc"], "task sums_chois: unknown; did you mean sums_choice"),
        (["--source", "nowhere"], "models.sources.2: nowhere: no such folder"),
        (["--task", "nonesuch"], "check the name, or name its folder with --task-folder"),
        (["--task-folder", "nowhere"], "evomerge: --task-folder: nowhere is no folder"),
        (["--candidates", "0"], "evomerge: --candidates 0: must be at least 1"),
        (["--hours", "0"], "evomerge: --hours 0: must be a number of hours above 0"),
        (["--hours", "nan"], "evomerge: --hours nan: must be a number of hours above 0"),
        (["--space", "per_lair"], "search_space: per_lair"),
        (["--task", "sums_choice:acc"], "sums_choice/acc is listed twice"),
    ],
)
def test_a_wrong_answer_is_one_line_and_nothing_is_written(
    more: list[str], words: str, models: Path, tmp_path: Path
) -> None:
    out = tmp_path / "job.yaml"
    said = init(*given(models, out), *more)
    assert said.exit_code == 2
    assert words in said.stderr
    assert len(said.stderr.splitlines()) == 1
    assert not out.exists()


def test_a_front_of_one_objective_is_refused_in_the_words_of_the_command(
    models: Path, tmp_path: Path
) -> None:
    out = tmp_path / "job.yaml"
    said = init(
        *("--out", str(out), "--base", str(models / "base"), "--source", str(models / "first")),
        *("--task", "sums_choice:acc", "--task-folder", str(TASKS), "--goal", "front"),
    )
    assert said.exit_code == 2 and not out.exists()
    assert said.stderr.splitlines() == [
        "evomerge: --goal front: needs two objectives or more; give another --task, or leave "
        "--goal out"
    ]


def test_without_a_terminal_what_is_needed_is_named(tmp_path: Path) -> None:
    said = init("--out", str(tmp_path / "job.yaml"))
    assert said.exit_code == 2
    assert "--base: not given" in said.stderr


def test_odd_names_stay_texts(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "on\n12.yaml"
    odd = tmp_path / "yes: {a}, #b"
    odd.symlink_to(models / "first", target_is_directory=True)
    said = init(
        *("--out", str(out), "--base", str(models / "base"), "--source", str(odd)),
        *("--task", "sums_choice:acc", "--task-folder", str(TASKS)),
    )
    assert said.exit_code == 0, said.output
    assert load_job(out).models.sources == (str(odd),)
    assert load_job(out).name == "on-12"
    assert "next: evomerge check '" in said.stdout, "as a shell reads it"
