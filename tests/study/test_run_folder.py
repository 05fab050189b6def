"""Code that a run directory's job names runs for who began the search, and for who says so."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from evomerge.cli import app
from evomerge.errors import RunError
from evomerge.study import check_trusted, create_study
from tests.search.jobs import job_document, make_job, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


def stranger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))


def change(run_dir: Path, section: str, **changes: Any) -> None:
    document = yaml.safe_load((run_dir / "job.yaml").read_text())
    document[section].update(changes)
    (run_dir / "job.yaml").write_text(yaml.safe_dump(document))


def test_who_began_it_is_asked_nothing_wherever_it_lies(tmp_path: Path, models: Path) -> None:
    create_study(tmp_path / "run", make_job(models)).close()
    check_trusted(tmp_path / "run", trust=False)
    (tmp_path / "run").rename(tmp_path / "moved")
    check_trusted(tmp_path / "moved", trust=False)


@pytest.mark.parametrize("command", ["resume", "export"])
def test_a_strangers_code_runs_only_where_that_is_said(
    tmp_path: Path, models: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_study(tmp_path / "run", make_job(models)).close()
    change(tmp_path / "run", "evaluation", task_folders=[str(tmp_path / "code")])
    (tmp_path / "code").mkdir()
    ran = tmp_path / "ran"
    (tmp_path / "code" / "code.py").write_text(f"open({str(ran)!r}, 'w')\ndef load(**_): ...\n")
    (tmp_path / "code" / "sums.yaml").write_text(
        "task: sums_choice\ncustom_dataset: !function code.load\n"
    )
    for other in (False, True):
        if other:
            stranger(monkeypatch, tmp_path)
        arguments = [command, str(tmp_path / "run")]
        arguments += ["--out", str(tmp_path / "out")] if command == "export" else []
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2
        assert "evaluation.task_folders" in result.stderr
        assert "--trust-code" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert not ran.exists()
    check_trusted(tmp_path / "run", trust=True)


def test_a_mark_is_of_one_user_and_of_the_code_that_was_named(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_study(tmp_path / "run", make_job(models)).close()
    change(tmp_path / "run", "models", trust_remote_code=True)
    with pytest.raises(RunError, match=r"models\.trust_remote_code"):
        check_trusted(tmp_path / "run", trust=False)
    change(tmp_path / "run", "models", trust_remote_code=False)
    check_trusted(tmp_path / "run", trust=False)
    stranger(monkeypatch, tmp_path)
    with pytest.raises(RunError, match="you did not start this search"):
        check_trusted(tmp_path / "run", trust=False)


def test_shipped_tasks_need_no_mark(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = job_document(models)
    evaluation = {**document["evaluation"], "task_folders": []}
    create_study(tmp_path / "run", make_job(models, evaluation=evaluation)).close()
    stranger(monkeypatch, tmp_path)
    check_trusted(tmp_path / "run", trust=False)


def test_the_key_is_for_its_user_alone(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger(monkeypatch, tmp_path)
    create_study(tmp_path / "run", make_job(models)).close()
    [key] = (tmp_path / "another user" / "evomerge").iterdir()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_bytes().hex() not in (tmp_path / "run" / "run.mark").read_text()
