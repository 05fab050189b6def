"""The report on a job before its search: it refuses what a search refuses, and writes nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from click.testing import Result
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import evomerge
from evomerge.check import CheckReport
from evomerge.check.report import half_width, items_for
from evomerge.check.words import _goals
from evomerge.cli import app
from evomerge.errors import InputError
from evomerge.service.client.results import read_check
from evomerge.workers import prepare
from tests.search.jobs import PARAMETERS, TASKS, job_document, make_job, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def report(models: Path) -> CheckReport:
    """Of a job with a task that is only reported; timed."""
    document = job_document(models, report=["coins"])
    return evomerge.check(document, within=0.2)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def write_job(folder: Path, models: Path, **changes: Any) -> Path:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job_document(models, **changes)))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"objectives": [{"task": "sums_choice", "metric": "accuracy"}]},
        {"objectives": [{"task": "sums_choise", "metric": "acc"}]},
        {"budget": {"candidates": 3}},
        {"search_space": {**PARAMETERS, "method": "tied"}},
        {"compute": {"device": "cuda:7"}},
        {"evaluation": {"task_folders": [str(TASKS)], "items_per_generation": 1}},
        {"evaluation": {"task_folders": [str(TASKS)], "apply_chat_template": True}},
    ],
    ids=["metric", "task", "budget", "space", "device", "items", "template"],
)
def test_what_a_search_refuses_is_refused_with_the_same_line(
    changes: dict[str, Any], models: Path, tmp_path: Path
) -> None:
    job = str(write_job(tmp_path, models, **changes))
    checked = run("check", job)
    searched = run("search", job, "--run-dir", str(tmp_path / "run"))
    assert checked.exit_code == 2
    assert checked.stderr == searched.stderr
    assert checked.stdout == ""


def test_weights_that_a_search_refuses_are_refused(models: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(models / "first", broken)
    weights = load_file(broken / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    job = str(write_job(tmp_path, models))
    checked = run("check", job, "--no-timing", "--set", f"models.sources=[{broken}]")
    assert checked.exit_code == 2
    assert str(broken) in checked.stderr
    assert "holds NaN, so no merge" in checked.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("last: 121", "last: 105"), "its data hold no documents"),
        (
            ("num_fewshot: 0", "num_fewshot: 50\nfewshot_split: test"),
            "there are fewer than 50 few-shot examples for item 0; lower evaluation.num_fewshot",
        ),
    ],
    ids=["empty", "examples"],
)
def test_a_task_without_enough_items_is_told_in_plain_words(
    change: tuple[str, str], words: str, models: Path, tmp_path: Path
) -> None:
    groups = TASKS.parent / "groups"
    shutil.copy(groups / "dataset.py", tmp_path)
    (tmp_path / "few.yaml").write_text((groups / "few.yaml").read_text().replace(*change))
    job = write_job(
        tmp_path,
        models,
        objectives=[{"task": "few", "metric": "acc"}],
        evaluation={"task_folders": [str(tmp_path)]},
    )
    checked = run("check", str(job), "--no-timing")
    assert checked.exit_code == 2
    assert f"task few: {words}" in checked.stderr
    assert len(checked.stderr.splitlines()) == 1


def test_a_chat_template_that_fails_is_told_as_such(models: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(models / "base", base)
    (base / "chat_template.jinja").write_text("{{ raise_exception('no turns') }}")
    job = str(write_job(tmp_path, models))
    changes = ["--set", f"models.base={base}", "--set", "evaluation.apply_chat_template=true"]
    checked = run("check", job, "--no-timing", *changes)
    assert checked.exit_code == 2
    assert "item 0: the tokenizer's chat template fails (no turns); mend it" in checked.stderr


def test_a_folder_that_a_search_would_refuse_is_told(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = write_job(tmp_path, models)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "sums").mkdir(parents=True)
    (tmp_path / "runs" / "sums" / "job.yaml").touch()
    refused = run("search", str(job))
    assert refused.exit_code == 2
    why = refused.stderr.strip().removeprefix("evomerge: ")
    assert f"note: {why}" in run("check", str(job), "--no-timing").stdout.splitlines()


def test_nothing_is_written(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = write_job(tmp_path, models)
    monkeypatch.chdir(tmp_path)

    def files() -> list[str]:
        return sorted(
            os.path.join(parent, name)
            for folder in (tmp_path, models)
            for parent, _, names in os.walk(folder)
            for name in names
        )

    before = files()
    checked = run("check", str(job), "--no-timing")
    assert checked.exit_code == 0
    assert "accepts this job, as far as this shows without running a model" in checked.stdout
    assert files() == before
    assert not (tmp_path / "runs").exists()


def test_models_and_tasks_are_described(report: CheckReport) -> None:
    assert [model.part for model in report.models] == ["base", "source", "source"]
    assert {model.layers for model in report.models} == {2}
    choice, said, coins = report.tasks
    assert (choice.facts.output_type, said.facts.output_type) == (
        "multiple_choice",
        "generate_until",
    )
    assert choice.facts.answer_tokens is not None
    assert choice.facts.answer_tokens.longest == 1
    assert said.facts.limit_tokens == 2
    assert sum(choice.items.values()) == 121
    assert coins.reported_only
    assert list(coins.items) == ["test"]


def test_three_items_are_shown_as_the_model_sees_them(report: CheckReport, models: Path) -> None:
    choice, said, _ = report.tasks
    assert len(choice.shown) == len(said.shown) == 3
    first = choice.shown[0]
    assert first.prompts[0].endswith(" equals")
    assert len(first.answers) == 11
    assert first.target in [answer.strip() for answer in first.answers]
    assert said.shown[0].answers == ()
    searched = prepare(make_job(models)).suite.items(choice.name, "search")
    assert {item.item for item in choice.shown} <= set(searched), "test items stay unseen"
    lines = report.lines()
    assert f"    | {first.prompts[0]}" in lines
    assert sum(line.startswith("   *> ") for line in lines) == 3 + len(report.tasks[2].shown)


def test_the_time_of_the_search_is_the_time_of_its_phases(report: CheckReport) -> None:
    assert report.timing is not None
    assert report.hours is not None
    assert set(report.timing.item_s) == {"sums_choice", "sums_said", "coins"}
    for phase, (least, most) in zip(report.forecast.phases, report.hours.phases, strict=True):
        each = report.timing.candidate_s(phase.items) / 3600
        assert (least, most) == pytest.approx((phase.models[0] * each, phase.models[1] * each))
    assert "time" in report.lines()
    assert report.lines()[0] == "sums: a search accepts this job."


def test_memory_comes_from_the_shapes(report: CheckReport, models: Path) -> None:
    weights = [models / name / "model.safetensors" for name in ("base", "first", "second")]
    assert report.memory.files_bytes == sum(path.stat().st_size for path in weights)
    assert report.memory.model_bytes == 4 * report.models[0].parameters, "float32"
    assert report.memory.device == "cpu"


def test_items_for_an_interval() -> None:
    assert half_width(items_for(0.05)) <= 0.05 < half_width(items_for(0.05) - 1)
    assert items_for(0.05) == 385
    with pytest.raises(InputError, match=r"within: 0\.5 is outside"):
        evomerge.check({}, within=0.5)


def test_a_split_with_too_few_items_is_named(report: CheckReport) -> None:
    assert report.items_within == 25
    told = [line for line in report.lines() if "±0.2 needs 25 items" in line]
    small = [t for t in report.tasks if min(t.items.values()) < 25]
    assert len(told) == len(small) > 0


def test_the_report_as_json(models: Path, tmp_path: Path) -> None:
    said = run("check", str(write_job(tmp_path, models)), "--no-timing", "--json")
    document = json.loads(said.stdout)
    assert document["timing"] is None
    assert document["forecast"]["stages"][0]["generations"] == 3
    assert document["tasks"][0]["shown"][0]["prompts"]
    phases = document["forecast"]["phases"]
    assert sum(p["total_items"][1] for p in phases) == document["forecast"]["total_items"][1]


def test_a_report_that_was_sent_is_read_back_equal(report: CheckReport) -> None:
    assert report.timing is not None
    assert read_check({"report": json.loads(json.dumps(report.to_json()))}) == report


def test_signs_that_a_terminal_would_obey_are_shown_as_text(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = "".join(json.dumps({"q": f"zero plus\x1b[2J {n}", "a": "one"}) + "\n" for n in range(40))
    (folder / "rows.jsonl").write_text(rows)
    (folder / "odd.yaml").write_text(
        f"task: odd\ndataset_path: json\ndataset_kwargs: {{data_files: {folder / 'rows.jsonl'}}}\n"
        'test_split: train\noutput_type: generate_until\ndoc_to_text: "{{q}} "\n'
        'doc_to_target: "{{a}}"\nmetric_list: [{metric: exact_match}]\n'
    )
    job = write_job(
        tmp_path,
        models,
        objectives=[{"task": "odd", "metric": "exact_match"}],
        evaluation={"task_folders": [str(folder)]},
    )
    said = run("check", str(job), "--no-timing").stdout
    assert "\x1b" not in said
    assert "| zero plus\\x1b[2J" in said
    assert "[the prompt ends with ' ']" in said


@pytest.mark.parametrize(
    ("members", "line"),
    [
        (["sums"], "    1 task: sums"),
        (["sums", "coins"], "    2 tasks, of the same weight: sums, coins"),
    ],
)
def test_the_tasks_of_a_group_are_counted(members: list[str], line: str) -> None:
    goal = SimpleNamespace(
        part="objective", name="mine/acc", wanted="higher", members=members, weight_by_size=False
    )
    assert (
        list(_goals(cast(CheckReport, SimpleNamespace(combined="mean", goals=[goal]))))[-1] == line
    )
