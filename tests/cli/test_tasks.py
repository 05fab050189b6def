"""The command that makes a task: what it prints, what it asks, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from evomerge.cli import app
from evomerge.cli import tasks as task_commands


def run(*arguments: object, typed: str | None = None) -> Result:
    result = CliRunner().invoke(app, ["task", "from-file", *map(str, arguments)], input=typed)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.csv"
    path.write_text('question,answer\n"what is\x1b[31m {{ 1 }} ?",cat\nwhat ?,dog\n')
    return path


def test_a_task_is_made_and_its_prompts_shown_without_acting_on_the_terminal(
    answers: Path, tmp_path: Path
) -> None:
    result = run(answers, "--out", tmp_path / "made", "--stop", r"\n")
    assert result.exit_code == 0, result.output
    assert "kind:     exact" in result.stdout and r"end at '\n'" in result.stdout
    assert r"  | Question: what is\x1b[31m {{ 1 }} ?" in result.stdout
    assert "\x1b" not in result.stdout
    assert (tmp_path / "made" / "answers.yaml").is_file()
    assert "lm_eval --model hf" in result.stdout.splitlines()[-1]


def test_json_is_for_programs(answers: Path, tmp_path: Path) -> None:
    result = run(answers, "--out", tmp_path / "made", "--json")
    assert json.loads(result.stdout)["name"] == "answers"


def test_unclear_columns_are_refused_with_exit_code_2_where_nobody_can_be_asked(
    tmp_path: Path,
) -> None:
    path = tmp_path / "answers.csv"
    path.write_text("foo,bar\nwhat ?,cat\n")
    result = run(path, "--out", tmp_path / "made")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("evomerge: ") and "--question COLUMN" in line
    assert not (tmp_path / "made").exists()


def test_unclear_columns_are_asked_for_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answers.csv"
    path.write_text("foo\x1b[31m,bar,answer\nwhat ?,x,cat\n")
    monkeypatch.setattr(task_commands, "_on_a_terminal", lambda: True)
    result = run(path, "--out", tmp_path / "made", typed="7\n1\n")
    assert result.exit_code == 0, result.output
    assert "Which column is the question?" in result.stderr
    assert r"1  foo\x1b[31m" in result.stderr and "\x1b" not in result.stderr
    assert r"question: foo\x1b[31m" in result.stdout


def test_a_user_who_does_not_answer_ends_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answers.csv"
    path.write_text("foo,bar,answer\nwhat ?,x,cat\n")
    monkeypatch.setattr(task_commands, "_on_a_terminal", lambda: True)
    result = run(path, "--out", tmp_path / "made", typed="")
    assert result.exit_code == 130 and not (tmp_path / "made").exists()
