"""The process that makes a task of a table, and two requests for one name."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from evomerge.service.http.routes import questions
from tests.service.http.house import House

ASKED = {"name": "ours", "text": "question,answer\n1,2\n", "project": "default", "keep": True}


def test_the_process_gets_no_secret_of_the_server(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = ("PGPASSWORD", "EVOMERGE_DATABASE", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY")
    for name in secrets:
        monkeypatch.setenv(name, "hidden")
    given: dict[str, str] = {}

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        given.update(options["env"])
        return subprocess.CompletedProcess(command, 2, stdout="", stderr="no question")

    monkeypatch.setattr(subprocess, "run", run)
    assert house.post("/tasks/from-file", ASKED).json()["detail"] == "no question"
    assert "PATH" in given
    assert "hidden" not in given.values()


def test_of_two_requests_for_one_name_the_second_is_refused(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = house.settings.made_tasks(house.projects["default"]) / "ours"

    def make(table: Path, out: Path, new: questions.NewTask) -> dict[str, Any]:
        out.mkdir()
        kept.mkdir(parents=True)  # the other request is faster
        (kept / "first.yaml").touch()
        return {}

    monkeypatch.setattr(questions, "_made", make)
    answer = house.post("/tasks/from-file", ASKED)
    assert (answer.status_code, answer.json()["field"]) == (409, "name")
    assert [path.name for path in kept.iterdir()] == ["first.yaml"]
