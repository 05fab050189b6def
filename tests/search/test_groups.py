"""Groups of lm-eval as objectives: each is one score, the one that lm-eval prints for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

import evomerge
from evomerge.errors import JobError, TaskError
from evomerge.evaluate import ScoreSummary
from evomerge.job import parse_job
from evomerge.search.ledger import Ledger
from evomerge.search.results.front import Front
from evomerge.search.results.selection import Selection
from evomerge.search.run import run_job
from evomerge.study import create_study
from evomerge.workers.preparation.preparation import pin, prepare
from tests.search.jobs import LightPool, job_document, write_models

GROUPS = Path(__file__).parent / "groups"
MEMBERS = ("many", "some", "few")


def group_job(folder: Path, **changes: Any) -> dict[str, Any]:
    """A job over two groups of the same tasks."""
    document = job_document(
        folder,
        objectives=[
            {"task": "sized", "metric": "acc"},
            {"task": "equal", "metric": "acc", "weight": 2.0},
        ],
        aggregate="geometric",
        constraints=[{"task": "equal", "metric": "acc", "at_least": 0.5, "of": "base"}],
        budget={"candidates": 8},
    )
    document["evaluation"] = {
        "task_folders": [str(GROUPS)],
        "items_per_generation": 24,
        "items_for_baselines": 30,
        "finalists": 1,
    }
    return {**document, **changes}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def result(models: Path) -> evomerge.SearchResult:
    return evomerge.search(group_job(models), models / "run")


def winner_of(result: evomerge.SearchResult) -> ScoreSummary:
    selection = result.outcome
    assert isinstance(selection, Selection)
    return next(entry for entry in selection.test if entry.role == "winner")


def stock(folder: Path, group: str, samples: dict[str, list[int]]) -> float:
    """What lm-eval prints for the group on these items of its tasks."""
    model = HFLM(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        tokenizer=AutoTokenizer.from_pretrained(folder),
    )
    found = lm_eval.simple_evaluate(
        model=model,
        tasks=[group],
        samples=samples,
        task_manager=TaskManager(include_defaults=False, include_path=str(GROUPS)),
        bootstrap_iters=0,
    )
    assert found is not None
    return float(found["groups"][group]["acc,none"])


def test_a_group_scores_what_stock_lm_eval_prints_for_it_on_the_exported_folder(
    result: evomerge.SearchResult, models: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    result.export(out)
    suite = prepare(result.job).suite
    samples = {task: list(suite.items(task, "test")) for task in MEMBERS}
    winner = winner_of(result)
    means = {task: winner.tasks[task]["acc"].value for task in MEMBERS}
    found = {group: winner.tasks[group]["acc"].value for group in ("sized", "equal")}
    assert len(set(means.values())) > 1, "equal scores would show no weights"
    for group, value in found.items():
        assert value == pytest.approx(stock(out, group, samples), abs=1e-12)
    assert found["equal"] == pytest.approx(sum(means.values()) / 3)
    counts = {task: len(ids) for task, ids in samples.items()}
    assert len(set(counts.values())) == 3
    weighted = sum(means[task] * counts[task] for task in MEMBERS) / sum(counts.values())
    assert found["sized"] == pytest.approx(weighted)
    # The aggregate is over the two groups, not over their tasks.
    score = found["sized"] ** (1 / 3) * found["equal"] ** (2 / 3)
    assert winner.score.value == pytest.approx(score)
    assert winner.score.low <= score <= winner.score.high


def test_a_group_is_a_line_above_its_tasks_and_the_record_holds_its_score(
    result: evomerge.SearchResult,
) -> None:
    names = list(winner_of(result).tasks)
    assert set(names[:2]) == {"sized", "equal"}
    assert names[2:] == list(MEMBERS)
    trials = result.trials_dataframe()
    assert {"sized/acc", "equal/acc", "many/acc"} <= set(trials.columns)
    scored = trials[trials["kind"] == "baseline"]
    equal = scored[[f"{task}/acc" for task in MEMBERS]].mean(axis=1)
    assert scored["equal/acc"].tolist() == pytest.approx(equal.tolist())


def test_the_record_holds_the_tasks_of_a_group_and_goes_on_with_them(
    result: evomerge.SearchResult, models: Path
) -> None:
    objective = result.job.objectives[0]
    assert objective.task == "sized"
    assert objective.members == MEMBERS
    assert objective.weight_by_size
    assert not result.job.objectives[1].weight_by_size
    assert result.job.search_tasks == MEMBERS
    again = evomerge.resume(models / "run", set={"budget.candidates": 12})
    whole = evomerge.search(group_job(models, budget={"candidates": 12}), models / "whole")
    columns = ["candidate", "score", "sized/acc", "equal/acc"]
    parts = [r.trials_dataframe()[columns] for r in (again, whole)]
    generations = [t[t["candidate"].str.startswith("g0")].reset_index(drop=True) for t in parts]
    assert generations[0].equals(generations[1])


def test_a_model_is_evaluated_on_the_groups_of_a_job(models: Path) -> None:
    model = str(models / "base")
    summary = evomerge.evaluate(model, group_job(models, report=["ends"]), split="test")
    means = [summary.tasks[task]["acc"].value for task in MEMBERS]
    assert summary.tasks["equal"]["acc"].value == pytest.approx(sum(means) / 3)


def test_a_group_is_one_axis_of_a_front(models: Path) -> None:
    document = group_job(
        models,
        mode="pareto",
        aggregate="mean",
        optimizer={"seed": 3, "population": 5},
        budget={"candidates": 10},
    )
    job = pin(parse_job(yaml.safe_dump(document), where="job.yaml"))
    preparation = prepare(job)
    assert [str(axis) for axis in preparation.objective.axes] == ["sized/acc", "equal/acc"]
    run_dir = models / "front"
    directions = preparation.objective.directions
    with create_study(run_dir, job, directions=directions) as study, LightPool() as pool:
        _, front = run_job(Ledger(preparation=preparation, study=study, pool=pool))
    assert isinstance(front, Front)
    for point in front.points:
        means = [point.test.tasks[task]["acc"].value for task in MEMBERS]
        assert front.axes[1].of(point.test).value == pytest.approx(sum(means) / 3)


def test_the_job_says_how_a_groups_tasks_weigh(result: evomerge.SearchResult) -> None:
    assert set(prepare(result.job).notes) >= {
        "sized: a group of 3 tasks, weighted by their items",
        "equal: a group of 3 tasks, all with the same weight",
    }


def test_a_name_for_tasks_of_ones_own_choice_is_scored_as_a_group(models: Path) -> None:
    own = [{"task": "mine", "metric": "acc", "members": ["many", "few"], "weight_by_size": True}]
    spec = parse_job(yaml.safe_dump(group_job(models, objectives=own)), where="job.yaml")
    [term] = prepare(pin(spec)).objective.terms
    assert [part.metric.task for part in term.metric.parts] == ["many", "few"]
    own[0]["task"] = "few"
    with pytest.raises(JobError, match="few has members, and is a task itself"):
        parse_job(yaml.safe_dump(group_job(models, objectives=own)), where="job.yaml")


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({"members": ["many", "few"]}, {"members": ["some"]}, "mine has other members"),
        (
            {"members": ["many", "few"]},
            {"members": ["many", "few"], "weight_by_size": True},
            "mine/acc has another weight_by_size",
        ),
        ({"task": "equal", "weight_by_size": True}, {"task": "sized"}, "equal: weight_by_size nee"),
    ],
)
def test_a_group_means_the_same_in_a_whole_job(
    first: dict[str, Any], second: dict[str, Any], words: str, tmp_path: Path
) -> None:
    named = {"task": "mine", "metric": "acc"}
    document = group_job(
        tmp_path,
        objectives=[{**named, **first}],
        constraints=[{**named, **second, "at_least": 0.5}],
    )
    with pytest.raises(JobError, match=words):
        parse_job(yaml.safe_dump(document), where="job.yaml")


def test_a_reported_group_is_its_tasks(models: Path) -> None:
    document = group_job(models, objectives=[{"task": "few", "metric": "acc"}], report=["sized"])
    document["constraints"] = []
    job = pin(parse_job(yaml.safe_dump(document), where="job.yaml"))
    assert job.report == MEMBERS
    assert job.all_tasks == ("few", "many", "some")


def test_a_member_without_the_metric_is_named_with_its_group(models: Path) -> None:
    own = [{"task": "mine", "metric": "acc_norm", "members": ["many", "few"]}]
    job = parse_job(yaml.safe_dump(group_job(models, objectives=own)), where="job.yaml")
    with pytest.raises(TaskError, match="task mine: its task many: no metric acc_norm; usable"):
        prepare(pin(job))
