"""A search with several objectives, from the job to an exported point."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from evomerge.cli import app
from evomerge.errors import JobError, RunError
from evomerge.job import JobSpec
from evomerge.recipe import load_recipe
from evomerge.search.ledger import Ledger
from evomerge.search.results.answers import compare_answers
from evomerge.search.results.cut_answers import cut_answers
from evomerge.search.results.front import Front
from evomerge.search.results.points import read_outcome
from evomerge.search.run import run_job
from evomerge.study import create_study, read_study
from evomerge.workers.preparation.preparation import prepare
from tests.search.jobs import JOBS, LightPool, job_document, make_job, write_models
from tests.search.test_resume import kill_and_resume

AXES = ["sums_choice/acc", "sums_said/exact_match"]


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def searched(models: Path) -> Path:
    """The run directory of a finished search, scored without a model."""
    preparation = prepare(make_job(models, **JOBS["pareto"]))
    run_dir = models / "light"
    directions = preparation.objective.directions
    with (
        create_study(run_dir, preparation.job, directions=directions) as study,
        LightPool() as pool,
    ):
        run_job(Ledger(preparation=preparation, study=study, pool=pool))
    return run_dir


@pytest.fixture(scope="module")
def front(searched: Path) -> Front:
    with read_study(searched) as study:
        outcome = read_outcome(study.noted("selection"))
    assert isinstance(outcome, Front)
    return outcome


@pytest.mark.parametrize(("job", "few", "many"), [("pareto", 6, 40), ("pareto_routes", 5, 40)])
def test_a_killed_search_resumes_to_the_same_trials_and_front(
    tmp_path: Path, job: str, few: int, many: int, faults: bool
) -> None:
    kills = many if faults else few
    result = kill_and_resume(tmp_path, job, {"light": kills})["light"]
    assert [kill["differs"] for kill in result["kills"]] == [[]] * kills
    assert all(kill["killed"] for kill in result["kills"])


def test_no_point_of_the_front_beats_another_on_the_validation_items(front: Front) -> None:
    assert len(front.points) > 1, "the fixture is to have a front"
    scores = [[axis.of(p.validation).value for axis in front.axes] for p in front.points]
    for one in scores:
        for other in scores:
            beaten = all(b >= a for a, b in zip(one, other, strict=True)) and one != other
            assert not beaten
    assert scores == sorted(scores)


def test_nothing_that_was_validated_and_kept_the_constraints_beats_a_point(front: Front) -> None:
    for summary in front.validated:
        scores = [axis.of(summary).value for axis in front.axes]
        if scores[0] < 0.3:
            continue
        for point in front.points:
            mine = [axis.of(point.validation).value for axis in front.axes]
            assert scores == mine or any(m > s for m, s in zip(mine, scores, strict=True))


def test_every_parent_stands_beside_the_front_on_the_test_items(front: Front) -> None:
    roles = [rival.role for rival in front.rivals]
    assert roles.count("parent") == 2
    assert "base" in roles
    assert {rival.label for rival in front.rivals} >= {"uniform soup"}
    tests = front.items["test"]
    assert all(point.test_key.generation == -2 for point in front.points)
    assert set(tests) == {"sums_choice", "sums_said"}


def test_the_record_is_a_study_of_several_objectives(searched: Path, front: Front) -> None:
    storage = f"sqlite:///{searched / 'study.db'}"
    study = optuna.load_study(study_name="sums", storage=storage)
    assert study.directions == [optuna.study.StudyDirection.MAXIMIZE] * 2
    assert study.metric_names == AXES
    assert study.best_trials
    with read_study(searched) as record:
        by_label = {trial.label: trial for trial in record.trials_of("genome")}
    for frozen in study.trials:
        if frozen.user_attrs["label"] in by_label:
            trial = by_label[frozen.user_attrs["label"]]
            acc, match = trial.means["sums_choice"]["acc"], trial.means["sums_said"]["exact_match"]
            assert frozen.values == [acc, match]
            assert trial.score == pytest.approx((acc + match) / 2)


def test_a_metric_that_is_better_when_lower_has_its_direction(models: Path, tmp_path: Path) -> None:
    preparation = prepare(make_job(models, **JOBS["pareto"]))
    create_study(tmp_path / "run", preparation.job, directions=("minimize", "maximize")).close()
    study = optuna.load_study(
        study_name="sums", storage=f"sqlite:///{tmp_path / 'run' / 'study.db'}"
    )
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]


def test_status_and_report_show_the_front(searched: Path, front: Front) -> None:
    said = json.loads(run("status", str(searched), "--json").stdout)
    assert said["headline"] == front.headline()
    assert [row["label"] for row in said["front"]] == [point.label for point in front.points]
    interval = said["front"][0]["test"][AXES[0]]
    assert interval["value"] == front.axes[0].of(front.points[0].test).value
    text = run("status", str(searched)).stdout
    assert all(point.label in text for point in front.points)
    assert front.export_command(searched) in text
    out = searched / "report.html"
    assert run("report", str(searched), "--out", str(out)).exit_code == 0
    page = out.read_text(encoding="utf-8")
    assert "The front on the test items" in page
    assert "How the winner was chosen" not in page
    for point in front.points:
        assert point.label in page
    assert f"--out DIR --point {(front.found or front.points)[0].label}" in page


def test_answers_of_each_point_of_the_front_are_kept_and_shown(
    searched: Path, front: Front
) -> None:
    points = [point.label for point in sorted(front.points, key=lambda point: not point.found)]
    with read_study(searched) as study:
        usual = compare_answers(study)
        by_label = {label: compare_answers(study, models=[label, "parents"]) for label in points}
        every = compare_answers(study, models=["front", "parents"])
        shares = {(entry.task, entry.label) for entry in cut_answers(study).shares}
        with pytest.raises(RunError, match="also as front, parents, soup and base"):
            compare_answers(study, models=["winner"])
    assert [model.label for model in usual.models] == [points[0], "first", "second", "uniform soup"]
    assert usual.remarks == (
        f"Other points of the front: {', '.join(points[1:])}; `--models front,parents` shows all, "
        "and a name there shows one.",
    )
    assert [model.label for model in every.models] == [*points, "first", "second"]
    assert every.remarks == ()
    assert shares == {
        (task, label)
        for task in ("sums_choice", "sums_said")
        for label in {*points, *(rival.label for rival in front.rivals)}
    }
    for point in front.points:
        sheet = by_label[point.label]
        assert sheet.models[0].key == point.test_key
        assert sheet.against is not None and sheet.against.role == "parent"
        for axis in front.axes:
            given = [item.answers[0] for item in sheet.items if item.task == axis.task]
            assert [each.answer.said for each in given] == [str(each.value) for each in given]
            mean = sum(each.value or 0.0 for each in given) / len(given)
            assert mean == pytest.approx(axis.of(point.test).value)


def test_the_commands_end_with_a_front_and_export_a_point(models: Path, tmp_path: Path) -> None:
    job = job_document(models, **{**JOBS["pareto"], "budget": {"candidates": 5}})
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    run_dir = tmp_path / "run"
    searched = run("search", str(path), "--run-dir", str(run_dir))
    assert searched.stdout.startswith(("Gained", "Not settled", "No gain"))
    assert searched.exit_code == (3 if searched.stdout.startswith("No gain") else 0)
    with read_study(run_dir) as study:
        outcome = read_outcome(study.noted("selection"))
    assert isinstance(outcome, Front)
    chosen = outcome.points[-1]
    nothing = run("export", str(run_dir), "--out", str(tmp_path / "none"))
    assert nothing.exit_code == 2
    assert "--point" in nothing.stderr
    out = tmp_path / "point"
    done = run("export", str(run_dir), "--out", str(out), "--point", chosen.label, "--verify")
    assert done.exit_code == 0, done.stderr
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"A point of a front over {', '.join(AXES)}: {chosen.label}, chosen by name" in card
    assert "The other points of the front: " in card
    block = load_recipe(out / "recipe.yaml").evomerge
    assert block["candidate"] == chosen.label
    assert set(block["scores"]) == {"validation", "test"}
    assert run("resume", str(run_dir)).stdout == searched.stdout


def test_a_single_search_has_no_points(models: Path, tmp_path: Path) -> None:
    preparation = prepare(make_job(models))
    with create_study(tmp_path / "run", preparation.job) as study, LightPool() as pool:
        run_job(Ledger(preparation=preparation, study=study, pool=pool))
    refused = run("export", str(tmp_path / "run"), "--out", str(tmp_path / "x"), "--point", "a=1")
    assert refused.exit_code == 2
    assert re.search(r"--point a=1: .* has one winner and no front", refused.stderr)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"aggregate": "geometric"}, "aggregate: geometric makes one score"),
        ({"objectives": [{"task": "sums_choice", "metric": "acc"}]}, "needs two objectives"),
        ({"optimizer": {"algorithm": "cma_es"}}, "optimizer.algorithm: cma_es is not for mode"),
        (
            {"optimizer": {"algorithm": "como_cat_cma_es", "population": 4}},
            "optimizer.population: 4 is below 5",
        ),
        ({"search_space": None, "stages": JOBS["hybrid"]["stages"]}, "stages: each begins from"),
        ({"mode": "single", "optimizer": {"algorithm": "nsga2"}}, "nsga2 is not for mode: single"),
        (
            {
                "objectives": [
                    {"task": "sums_choice", "metric": "acc"},
                    {"task": "sums_said", "metric": "exact_match"},
                    {"task": "sums_said", "metric": "other"},
                ],
                "optimizer": {"algorithm": "como_cat_cma_es"},
            },
            "como_cat_cma_es is for two objectives, not 3",
        ),
    ],
)
def test_what_does_not_go_with_several_objectives_is_refused_in_a_line(
    models: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobError, match=re.escape(said)) as refused:
        make_job(models, **{"mode": "pareto", **changes})
    assert "\n" not in str(refused.value)


def test_a_record_from_before_there_were_modes_is_the_same_jobs(models: Path) -> None:
    single = make_job(models)
    assert "mode" not in single.fingerprint()
    pareto: JobSpec = make_job(models, mode="pareto")
    assert "mode" in pareto.fingerprint()
