"""What a result depends on is recorded at the start and told, or refused, where it changed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import RunError
from evomerge.workers.preparation.fingerprints import check_unchanged, fingerprints_of
from evomerge.workers.preparation.preparation import prepare
from tests.search.jobs import TASKS, make_job, write_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    write_models(path)
    return path


def facts(folder: Path, *, engine: str) -> dict[str, Any]:
    compute = {"engine": engine, "device": "cpu"}
    return fingerprints_of(prepare(make_job(folder, compute=compute)))


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
        monkeypatch.setattr(
            "evomerge.workers.vllm_models.vllm_version", lambda number=number: number
        )
        said[number] = facts(folder, engine="vllm")
    assert check_unchanged(said["1.0"], said["1.0"], where="run") == []
    assert check_unchanged(said["1.0"], said["2.0"], where="run") == ["vllm 1.0 -> 2.0"]
    assert check_unchanged(without, said["1.0"], where="run") == ["vllm not used -> 1.0"]
    assert check_unchanged(said["1.0"], without, where="run") == ["vllm 1.0 -> not used"]


def test_what_a_task_reads_elsewhere_is_compared_where_it_was_recorded(
    folder: Path, tmp_path: Path
) -> None:
    def file(digest: str, place: str = "nowhere") -> dict[str, str]:
        return {"sha256": digest, "root": str(tmp_path / "before"), "place": place}

    read = {"common/metrics.py": file("a"), "cache": file("b")}
    now = {**facts(folder, engine="auto"), "opened": read}
    changed = {**now, "opened": {**read, "common/metrics.py": file("c")}}
    with pytest.raises(RunError, match=r"run: task file common/metrics\.py changed since"):
        check_unchanged(now, changed, where="run")
    more = {**now, "opened": {**read, "common/extra.py": file("d")}}
    with pytest.raises(RunError, match=r"common/extra\.py now, and did not when"):
        check_unchanged(now, more, where="run")
    written = {**now, "opened": {**read, "cache": file("written by the task")}}
    assert check_unchanged(now, written, where="run") == []
    without = {key: value for key, value in now.items() if key != "opened"}
    with pytest.raises(RunError, match="run: its record has no opened"):
        check_unchanged(without, now, where="run")


def test_a_change_of_code_that_an_included_file_names_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    """The code lies outside the folders that the job names."""
    mine, common = tmp_path / "mine", tmp_path / "common"
    mine.mkdir()
    common.mkdir()
    code = common / "metrics.py"
    code.write_text((TASKS / "dataset.py").read_text())
    task = (TASKS / "sums_choice.yaml").read_text().replace("task: sums_choice\n", "")
    (common / "base.yaml").write_text(task.replace("!function dataset", "!function metrics"))
    (mine / "task.yaml").write_text("include: ../common/base.yaml\ntask: asked\n")
    job = make_job(
        folder,
        objectives=[{"task": "asked", "metric": "acc"}],
        evaluation={"task_folders": [str(mine)]},
    )
    before = fingerprints_of(prepare(job))
    assert check_unchanged(before, fingerprints_of(prepare(job)), where="run") == []
    code.write_text(code.read_text() + "\n# another metric\n")
    with pytest.raises(RunError, match=r"run: task file .*metrics\.py changed since"):
        check_unchanged(before, fingerprints_of(prepare(job)), where="run")


def test_what_is_read_while_answers_are_scored_is_looked_for_where_it_lay(
    folder: Path, tmp_path: Path
) -> None:
    """Or beside the tasks, where all of it was moved together."""
    weights = tmp_path / "before" / "common" / "weights.json"
    weights.parent.mkdir(parents=True)
    weights.write_text("1")
    digest = hashlib.sha256(b"1").hexdigest()
    scored = {"sha256": digest, "root": str(tmp_path / "before"), "place": "common/weights.json"}
    loaded = {"sha256": "a", "root": str(tmp_path / "after"), "place": "mine/metrics.py"}
    now = {**facts(folder, engine="auto"), "opened": {"mine/metrics.py": loaded}}
    before = {**now, "opened": {**now["opened"], "common/weights.json": scored}}
    assert check_unchanged(before, now, where="run") == []
    moved = tmp_path / "after" / "common" / "weights.json"
    moved.parent.mkdir(parents=True)
    moved.write_text("2")
    with pytest.raises(RunError, match=r"task file common/weights\.json changed"):
        check_unchanged(before, now, where="run")
    weights.rename(moved)
    assert check_unchanged(before, now, where="run") == []
    moved.unlink()
    with pytest.raises(RunError, match=r"task file common/weights\.json changed"):
        check_unchanged(before, now, where="run")


def test_the_packages_that_scores_are_made_with_are_named_and_changes_are_said(
    folder: Path,
) -> None:
    now = facts(folder, engine="auto")
    assert {"tokenizers", "datasets", "jinja2", "safetensors"} <= set(now["versions"])
    fewer = {key: value for key, value in now["versions"].items() if key != "tokenizers"}
    number = now["versions"]["tokenizers"]
    before = {**now, "versions": fewer}
    assert check_unchanged(before, now, where="run") == [f"tokenizers not used -> {number}"]
    assert check_unchanged(now, before, where="run") == [f"tokenizers {number} -> not used"]
