"""Who wins: never what is below a start on validation, what breaks a constraint, what fails."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import WorkerError
from evomerge.search.ledger import Ledger
from evomerge.search.results.selection import Selection, read_selection
from evomerge.search.run import run_job
from evomerge.search.selection.validation import AVERAGE
from evomerge.study import create_study, read_study, resume_study
from evomerge.workers.preparation.preparation import prepare
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.search.jobs import JOBS, make_job, write_models
from tests.search.selection.scripted import Quality, ScriptedPool

STARTS = {
    "base": 0.30,
    "first": 0.40,
    "second": 0.45,
    "uniform soup": 0.50,
    "task arithmetic": 0.45,
    "TIES": 0.45,
    "DARE-TIES": 0.45,
    "SLERP": 0.45,
    "start of the space": 0.40,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def preparation(models: Path) -> PreparedJob:
    return prepare(make_job(models, **BUDGET))


BUDGET: dict[str, Any] = {"budget": {"candidates": 4}}

CONSTRAINED: dict[str, Any] = {
    **BUDGET,
    "objectives": [{"task": "sums_choice", "metric": "acc"}],
    "constraints": [{"task": "sums_said", "metric": "exact_match", "at_least": 1.0, "of": "base"}],
}


def script(
    candidates: float, changes: Mapping[tuple[str, str], float | None] | None = None
) -> Quality:
    """Starts as in STARTS, all else at `candidates`; changes: (label, split) -> another quality."""

    def quality(label: str, split: str, task: str) -> float | None:
        return (changes or {}).get((label, split), STARTS.get(label, candidates))

    return quality


def run(run_dir: Path, preparation: PreparedJob, pool: ScriptedPool) -> Selection:
    fresh = not (run_dir / "job.yaml").exists()
    study = create_study(run_dir, preparation.job) if fresh else resume_study(run_dir)
    with study, pool:
        _, selection = run_job(Ledger(preparation=preparation, study=study, pool=pool))
        assert isinstance(selection, Selection)
        assert read_selection(study.noted("selection")) == selection
    return selection


def validated(selection: Selection) -> list[str]:
    return [entry.label for entry in selection.validation]


def test_a_clear_gain_is_claimed_over_every_parent_and_the_best_start(
    tmp_path: Path, preparation: PreparedJob
) -> None:
    selection = run(tmp_path / "run", preparation, ScriptedPool(script(0.9)))
    assert selection.winner == AVERAGE
    assert selection.verdict == "gained"
    assert (selection.best_start, selection.best_untuned) == ("uniform soup", "uniform soup")
    headline = selection.headline()
    assert headline.startswith("Gained +0.4")
    assert "the best parent (second)" in headline
    assert "against the best that the search began with (uniform soup)" in headline
    against = {one.label: one.difference for one in selection.comparisons}
    assert set(against) == {"base", "first", "second", "uniform soup"}
    assert selection.gain == against["second"].interval
    assert all(difference.settled for difference in against.values())
    assert selection.on_validation is not None
    assert selection.on_validation.label == "uniform soup"
    assert selection.on_validation.difference.settled


def test_a_start_that_the_search_items_hid_wins_on_validation(
    tmp_path: Path, preparation: PreparedJob
) -> None:
    """TIES is not the best of the search items, nor ruled out by them."""
    quality = script(0.6, {("TIES", "validation"): 0.8})
    selection = run(tmp_path / "run", preparation, ScriptedPool(quality))
    assert (selection.winner, selection.origin) == ("TIES", "baseline")
    assert not selection.better
    assert selection.headline().startswith(
        "No gain: no candidate is better on the validation items than TIES, a merge without a "
        "search that scores +0.0"
    )
    assert "an export is that untuned merge." in selection.headline()
    assert selection.on_validation is None


def test_what_is_surely_below_the_best_start_is_not_scored_again(
    tmp_path: Path, preparation: PreparedJob
) -> None:
    poor = {(label, "search"): 0.02 for label in ("first", "TIES", "base")}
    selection = run(tmp_path / "run", preparation, ScriptedPool(script(0.9, poor)))
    assert not {"first", "TIES"} & set(validated(selection))
    # The base always is, and so is what the search items cannot tell from the best.
    assert {"base", "second", "uniform soup", "SLERP", "DARE-TIES"} <= set(validated(selection))


def test_of_equals_a_start_wins_and_the_first_of_them(
    tmp_path: Path, preparation: PreparedJob
) -> None:
    selection = run(tmp_path / "run", preparation, ScriptedPool(lambda *_: 0.5))
    assert (selection.winner, selection.origin) == ("base", "base")
    assert selection.headline().startswith(
        "No gain: no candidate is better on the validation items than base, the base itself; an "
        "export is a model that you had already."
    )


def test_a_parent_that_wins_is_scored_once_and_stands_as_parent_too(
    tmp_path: Path, preparation: PreparedJob
) -> None:
    pool = ScriptedPool(script(0.2, {("second", "validation"): 0.9, ("first", "test"): 0.7}))
    selection = run(tmp_path / "run", preparation, pool)
    assert (selection.winner, selection.origin) == ("second", "parent")
    assert pool.scored.count(("second", "test")) == 1
    assert [entry.role for entry in selection.test[:4]] == ["winner", "base", "parent", "parent"]
    # Another parent is above it on the test items, and the numbers say so.
    assert selection.best_parent == "first"
    assert selection.gain.value < 0


def test_a_gain_over_parents_alone_is_not_claimed(tmp_path: Path, preparation: PreparedJob) -> None:
    """The soup that the search began with is as good as what it found."""
    quality = script(0.9, {("uniform soup", "test"): 0.9, ("uniform soup", "validation"): 0.7})
    selection = run(tmp_path / "run", preparation, ScriptedPool(quality))
    assert selection.winner == AVERAGE
    assert selection.gain.low > 0
    assert selection.verdict == "no gain"
    assert not selection.better
    assert selection.headline().startswith("No gain: ")
    assert "(uniform soup)" in selection.headline()


def test_what_is_not_settled_says_how_many_items_would_settle_it(
    tmp_path: Path, preparation: PreparedJob
) -> None:
    quality = script(0.6, {(AVERAGE, "test"): 0.6, ("uniform soup", "test"): 0.55})
    selection = run(tmp_path / "run", preparation, ScriptedPool(quality))
    assert selection.verdict == "not settled"
    assert selection.better
    start = selection.compared("uniform soup")
    assert start is not None
    wanted = start.difference.items_to_settle(selection.objective_items)
    assert wanted is not None
    assert wanted > selection.objective_items
    expected = f"About {wanted:,} test items would settle a difference of this size"
    assert expected in selection.headline()
    assert expected in selection.lines()[0]


def test_nothing_that_breaks_a_constraint_wins_while_something_keeps_it(
    tmp_path: Path, models: Path
) -> None:
    """What the search found is far better at one task and an item short of the other's constraint.

    A penalty alone would let it through.
    """

    def quality(label: str, split: str, task: str) -> float:
        if task == "sums_choice":
            return STARTS.get(label, 0.95)
        return 0.99 if label in STARTS else 0.96

    constrained = prepare(make_job(models, **CONSTRAINED))
    selection = run(tmp_path / "run", constrained, ScriptedPool(quality))
    assert selection.winner == "uniform soup"
    assert selection.feasible
    assert all(check.kept for check in selection.constraints)
    assert not selection.better


def test_a_start_is_not_ruled_out_by_one_that_is_nearer_to_breaking_a_constraint(
    tmp_path: Path, models: Path
) -> None:
    def quality(label: str, split: str, task: str) -> float:
        if task == "sums_choice":
            return 0.02 if label == "TIES" else 0.9
        return 0.9 if label == "TIES" else 0.7

    constraint = {"task": "sums_said", "metric": "exact_match", "at_least": 0.5}
    constrained = prepare(make_job(models, **{**CONSTRAINED, "constraints": [constraint]}))
    selection = run(tmp_path / "run", constrained, ScriptedPool(quality))
    assert "TIES" in validated(selection)


def test_it_is_said_first_when_nothing_keeps_the_constraints(tmp_path: Path, models: Path) -> None:
    def quality(label: str, split: str, task: str) -> float:
        if task == "sums_choice":
            return STARTS.get(label, 0.95)
        return 0.1 if split != "search" else 0.9

    constraint = {"task": "sums_said", "metric": "exact_match", "at_least": 0.5}
    constrained = prepare(make_job(models, **{**CONSTRAINED, "constraints": [constraint]}))
    selection = run(tmp_path / "run", constrained, ScriptedPool(quality))
    assert selection.headline().startswith(
        "No gain: nothing keeps the constraints on the validation items; the winner"
    )
    assert not selection.feasible
    assert not selection.better


def test_a_parent_that_fails_is_left_out_with_its_reason(
    tmp_path: Path, preparation: PreparedJob
) -> None:
    quality = script(0.9, {("second", "test"): None, ("base", "validation"): None})
    selection = run(tmp_path / "run", preparation, ScriptedPool(quality))
    assert selection.best_parent == "first"
    assert selection.verdict == "gained"
    lines = selection.lines()
    assert "Left out: second, which could not be scored on the test items: the logits are not " in (
        "\n".join(lines)
    )
    assert any(line.startswith("Left out: base") and "validation" in line for line in lines)
    assert run(tmp_path / "run", preparation, ScriptedPool(script(0.0))) == selection


def test_the_next_best_takes_the_place_of_a_winner_that_fails(
    tmp_path: Path, preparation: PreparedJob
) -> None:
    quality = script(0.9, {(AVERAGE, "test"): None})
    selection = run(tmp_path / "run", preparation, ScriptedPool(quality))
    assert selection.winner == validated(selection)[1] != AVERAGE
    assert f"Left out: {AVERAGE}, which could not be scored on the test" in selection.headline()
    assert selection.verdict == "gained"
    assert selection.test[0].label == selection.winner
    with read_study(tmp_path / "run") as study:
        assert study.trial(selection.test_key).label == selection.winner


def test_without_any_parent_the_winner_stands_beside_what_is_left(
    tmp_path: Path, preparation: PreparedJob
) -> None:
    quality = script(0.9, {("first", "test"): None, ("second", "test"): None})
    selection = run(tmp_path / "run", preparation, ScriptedPool(quality))
    assert "against uniform soup (no parent could be scored)" in selection.headline()
    assert selection.lines()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_where_everything_failed_a_resume_tries_again(
    tmp_path: Path, preparation: PreparedJob, split: str
) -> None:
    def broken(label: str, at: str, task: str) -> float | None:
        return None if at == split else STARTS.get(label, 0.9)

    for _ in range(2):
        with pytest.raises(WorkerError, match=rf"on the {split} items: the logits are not finite"):
            run(tmp_path / "run", preparation, ScriptedPool(broken))
    selection = run(tmp_path / "run", preparation, ScriptedPool(script(0.9)))
    undisturbed = run(tmp_path / "other", preparation, ScriptedPool(script(0.9)))
    assert selection.headline() == undisturbed.headline()


def test_a_stage_ends_with_a_start_where_that_is_the_best(tmp_path: Path, models: Path) -> None:
    job = make_job(models, **{**JOBS["hybrid"], "budget": {"candidates": 12}})
    quality = script(0.2, {("SLERP", "validation"): 0.8})
    selection = run(tmp_path / "run", prepare(job), ScriptedPool(quality))
    with read_study(tmp_path / "run") as study:
        [stage] = study.noted("stages")
    assert stage["winner"] == "SLERP"
    # The next stage finds nothing better either, and SLERP is still no find of the search.
    assert (selection.winner, selection.origin) == ("SLERP", "baseline")


def test_the_average_of_the_means_wins_unless_another_is_surely_better(
    tmp_path: Path, models: Path
) -> None:
    """The best of several finalists on validation items is partly the luckiest of them."""
    preparation = prepare(make_job(models, budget={"candidates": 12}))
    found = {}
    for last in (0.70, 0.90):
        qualities = {(AVERAGE, "validation"): 0.68, ("last mean", "validation"): last}
        pool = ScriptedPool(script(0.55, qualities))
        found[last] = run(tmp_path / str(last), preparation, pool)
    assert found[0.70].winner == AVERAGE
    assert validated(found[0.70])[:2] == [AVERAGE, "last mean"]
    assert found[0.90].winner == "last mean"


def test_the_average_does_not_pass_a_start_that_is_no_worse(tmp_path: Path, models: Path) -> None:
    preparation = prepare(make_job(models, budget={"candidates": 12}))
    qualities = {
        (AVERAGE, "validation"): 0.68,
        ("base", "validation"): 0.70,
        ("last mean", "validation"): 0.80,
    }
    pool = ScriptedPool(script(0.55, qualities))
    assert run(tmp_path / "run", preparation, pool).winner == "last mean"


def test_a_search_that_went_on_after_its_end_says_that_the_test_items_were_seen(
    tmp_path: Path, preparation: PreparedJob, models: Path
) -> None:
    first = run(tmp_path / "run", preparation, ScriptedPool(script(0.9)))
    assert first.tested_before == 0
    assert "unseen test items" in first.headline()
    again = run(tmp_path / "run", preparation, ScriptedPool(script(0.9)))
    assert again == first
    longer = prepare(make_job(models, budget={"candidates": 8}))
    second = run(tmp_path / "run", longer, ScriptedPool(script(0.9)))
    assert second.test_key != first.test_key
    assert second.tested_before == 1
    said = " ".join(second.lines())
    assert "unseen" not in said
    assert "on test items that were seen before" in said
    assert "1 selection of this search scored models on them" in said
