"""`evomerge list`: names that a job may have, read from files, without loading a task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from evomerge.cli import app
from evomerge.evaluate.suite import TaskSuite
from evomerge.evaluate.task_list import find_task, list_own, list_tasks
from evomerge.merge import DESCRIPTIONS, METHODS
from evomerge.space import read_space, rule_of, shipped_spaces
from tests.checkpoints import word_tokenizer
from tests.search.jobs import TASKS


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["list", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def listed(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


def test_every_space_is_listed_and_can_be_read() -> None:
    found = listed("spaces")
    assert {"one_weight_per_model", "data_flow"} <= {space["name"] for space in found}
    assert [space["genes"] for space in found] == sorted(space["genes"] for space in found)
    for space in shipped_spaces():
        assert read_space(space.name)
        assert "\n" not in space.summary
        assert space.summary.endswith(".") and len(space.summary) > 20, "a whole sentence"
    lines = run("spaces").stdout.splitlines()
    assert len(lines) == len(found) + 1


def test_a_method_that_is_said_to_be_searchable_is() -> None:
    said = {method["name"]: method["searchable"] for method in listed("methods")}
    assert said == {name: rule_of(name).searchable for name in METHODS}
    assert "karcher (nothing to search)" in run("methods").stdout.splitlines()
    assert all(method.computes and method.use_for for method in DESCRIPTIONS.values())


def test_tasks_of_a_job_come_before_the_shipped_ones(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        "name: x\nmodels: {base: a, sources: [b]}\nobjectives: [{task: coins, metric: acc}]\n"
        f"budget: {{candidates: 9}}\nevaluation: {{task_folders: [{TASKS}]}}\n"
    )
    names = [task["name"] for task in listed("tasks", "--job", str(job))]
    assert names[:3] == ["coins", "sums_choice", "sums_said"]
    assert "kana_counting_ja" in names
    assert "coins" not in [task["name"] for task in listed("tasks")]


def test_metrics_are_those_that_a_loaded_task_has() -> None:
    folders = [TASKS, Path(__file__).parents[1] / "evaluate" / "tasks"]
    listed = {task.name: task for task in list_tasks(folders)}
    wanted = ["sums_choice", "sums_said", "coins", "toy_choice", "toy_likely", "toy_filters"]
    suite = TaskSuite.load(wanted, folders=folders, tokenizer=word_tokenizer())
    for name in wanted:
        metrics = listed[name].metrics or ()
        usable = {m.name: m.higher_is_better for m in metrics if m.usable}
        assert usable == dict(suite.metrics(name)), name


def test_metrics_come_from_included_files_and_filters(tmp_path: Path) -> None:
    (tmp_path / "shared.yml").write_text(
        "metric_list: [{metric: exact_match}, {metric: f1}]\nfilter_list: [{name: a}, {name: b}]\n"
    )
    (tmp_path / "mine.yaml").write_text("task: mine\ninclude: shared.yml\ntag: [ours]\n")
    (tmp_path / "all.yaml").write_text(
        "group: all\ntask: [ours]\naggregate_metric_list: [{metric: exact_match}]\n"
    )
    (tmp_path / "coded.yaml").write_text("task: coded\nclass: !function x.Y\n")
    said = run("metrics", "mine", "all", "ours", "--task-folder", str(tmp_path)).stdout
    assert said.splitlines() == [
        "mine (task)",
        "  exact_match,a",
        "  f1,a, no mean over items, so it cannot be used",
        "  exact_match,b",
        "  f1,b, no mean over items, so it cannot be used",
        "all (group)",
        "  exact_match",
        "ours (tag)",
        "  no metrics of its own; those of its tasks",
    ]
    refused = run("metrics", "coded", "--task-folder", str(tmp_path))
    assert refused.exit_code == 2
    assert "task coded: it is a Python class" in refused.stderr


def test_a_word_keeps_the_names_that_have_it() -> None:
    names = [line.split()[0] for line in run("tasks", "Arith").stdout.splitlines()]
    assert "kana_arithmetic_en" in names
    assert all("arith" in name for name in names)
    assert json.loads(run("tasks", "no_such_word", "--json").stdout) == []


def test_lm_evals_own_tasks_are_found_by_their_files() -> None:
    kinds = dict(list_own())
    assert len(kinds) > 5000
    assert (kinds["arc_easy"], kinds["mmlu"], kinds["ai2_arc"]) == ("task", "group", "tag")
    metrics = find_task("arc_easy", []).metrics or ()
    assert [metric.name for metric in metrics] == ["acc", "acc_norm"]
    assert find_task("ai2_arc", []).kind == "tag"


def test_nothing_is_offered_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    refused = run("metrics", "kana_aritmetic_en")
    assert refused.exit_code == 2
    assert "did you mean kana_arithmetic_en" in refused.stderr
    refused = run("metrics", "nonesuch")
    assert "check the name, or name its folder with --task-folder" in refused.stderr
    for command in (("metrics", "mine"), ("tasks",)):
        refused = run(*command, "--task-folder", "nowhere")
        assert refused.exit_code == 2
        assert "evomerge: --task-folder: nowhere is no folder" in refused.stderr
