"""What a result depends on is recorded at the start and told, or refused, where it changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evomerge.preparation import check_unchanged, facts_of, prepare
from tests.searching.jobs import make_job, write_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    write_models(path)
    return path


def facts(folder: Path, *, engine: str) -> dict[str, Any]:
    compute = {"engine": engine, "device": "cpu"}
    return facts_of(prepare(make_job(folder, compute=compute)))


def test_a_package_of_another_version_is_told(folder: Path) -> None:
    before = facts(folder, engine="auto")
    assert "vllm" not in before["versions"]
    now = {**before, "versions": {**before["versions"], "torch": "0.1"}}
    told = check_unchanged(before, now, where="run")
    assert told == [f"torch {before['versions']['torch']} -> 0.1"]


def test_the_engine_that_scores_is_one_of_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = facts(folder, engine="transformers")
    said = {}
    for number in ("1.0", "2.0"):
        monkeypatch.setattr("evomerge.preparation.facts.vllm_version", lambda number=number: number)
        said[number] = facts(folder, engine="vllm")
    assert check_unchanged(said["1.0"], said["1.0"], where="run") == []
    assert check_unchanged(said["1.0"], said["2.0"], where="run") == ["vllm 1.0 -> 2.0"]
    assert check_unchanged(without, said["1.0"], where="run") == ["vllm not used -> 1.0"]
    assert check_unchanged(said["1.0"], without, where="run") == ["vllm 1.0 -> not used"]
