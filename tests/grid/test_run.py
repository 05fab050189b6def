"""A grid's numbers are those of its item results, and nothing is scored twice."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from evomerge.errors import WorkerError
from evomerge.evaluate.candidate import Candidate
from evomerge.grid import GridOutcome, GridRun, Row
from evomerge.study import Study
from evomerge.workers.preparation.prepared_job import PreparedJob
from tests.grid.conftest import opened
from tests.grid.grids import EVOLVED, HELD_IN, HELD_OUT, SOURCES, HashingPool


def mean_of(study: Study, outcome: GridOutcome, candidate: str, task: str) -> float:
    """A score as the Parquet files have it."""
    trial = next(trial for trial in study.trials if str(trial.key) == candidate)
    values = study.items_of(trial.key)[task].metrics["acc"]
    assert len(values) == outcome.items[task]
    return sum(values) / len(values)


def row_of(outcome: GridOutcome, method: str, experts: int) -> Row:
    return next(r for r in outcome.rows if (r.method, r.experts) == (method, experts))


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A grid that has run, and is still open; `scored` are the candidates that its pool had."""

    run: GridRun
    outcome: GridOutcome
    scored: list[Candidate]


@pytest.fixture(scope="module")
def whole(
    models: Path, prepared: PreparedJob, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Whole]:
    pool = HashingPool()
    with opened(tmp_path_factory.mktemp("whole") / "run", models, prepared, pool) as run:
        yield Whole(run=run, outcome=run.run(), scored=pool.scored)


def test_the_numbers_are_those_of_the_item_results(whole: Whole) -> None:
    run, outcome = whole.run, whole.outcome
    by_label = {model.label: model for model in outcome.models}
    for method in ("uniform soup", "TIES", "DARE-TIES"):
        merges = [m for m in outcome.models if m.method == method and len(m.experts) == 2]
        held_in, held_out = [], []
        for merge in merges:
            tasks = [task for task, expert in HELD_IN.items() if expert in merge.experts]
            ratios = [
                mean_of(run.study, outcome, merge.candidate, task)
                / mean_of(run.study, outcome, by_label[HELD_IN[task]].candidate, task)
                for task in tasks
            ]
            assert len(ratios) == 2
            held_in.append(sum(ratios) / 2)
            held_out.append(
                mean_of(run.study, outcome, merge.candidate, "sums_other")
                / mean_of(run.study, outcome, by_label["base"].candidate, "sums_other")
            )
            found = merge.normalised.held_in
            assert found is not None and found.value == pytest.approx(held_in[-1])
        row = row_of(outcome, method, 2)
        assert row.merges == len(merges) == (6 if method == "DARE-TIES" else 3)
        assert row.normalised.held_in is not None and row.normalised.held_out is not None
        assert row.normalised.held_in.value == pytest.approx(statistics.mean(held_in))
        assert row.normalised.held_out.value == pytest.approx(statistics.mean(held_out))
        assert row.spread_held_in == pytest.approx(statistics.stdev(held_in))
        assert row.spread_held_out == pytest.approx(statistics.stdev(held_out))


def test_the_references_are_one_of_themselves(whole: Whole) -> None:
    outcome = whole.outcome
    base = next(model for model in outcome.models if model.role == "base")
    assert base.normalised.held_out is not None
    assert base.normalised.held_out.value == base.normalised.held_out.high == 1.0
    assert outcome.held_in == {f"{task}/acc": expert for task, expert in HELD_IN.items()}


def test_a_task_that_the_base_cannot_do_is_left_out_and_named(whole: Whole) -> None:
    notes = whole.outcome.notes
    assert len(notes) == 1
    assert "sums_rare/acc" in notes[0] and "left out" in notes[0]


def test_every_model_is_scored_once_and_merges_on_their_own_tasks(
    whole: Whole, prepared: PreparedJob
) -> None:
    whole.run.run()
    labels = Counter(candidate.label for candidate in whole.scored)
    assert set(labels.values()) == {1}
    assert len(labels) == 4 + 4 * (1 + 1 + 2)
    test_items = {task: prepared.suite.items(task, "test") for task in (*HELD_IN, *HELD_OUT)}
    for candidate in whole.scored:
        held_in = [task for task, expert in HELD_IN.items() if expert in candidate.label]
        alone = candidate.label in ("base", *SOURCES)
        assert set(candidate.items) == {*(HELD_IN if alone else held_in), *HELD_OUT}
        assert all(candidate.items[task] == test_items[task] for task in candidate.items)


def test_all_items_are_scored_where_asked(
    tmp_path: Path, models: Path, prepared: PreparedJob
) -> None:
    pool = HashingPool()
    changes = {"split": "all", "methods": ["linear"], "experts": {"sizes": [3]}}
    with opened(tmp_path / "run", models, prepared, pool, **changes) as run:
        run.run()
    assert {len(ids) for one in pool.scored for ids in one.items.values()} == {121}


def test_an_extended_grid_scores_only_what_is_new_and_is_the_same_as_one_of_that_size(
    tmp_path: Path, models: Path, prepared: PreparedJob, whole: Whole
) -> None:
    small = {"methods": ["linear", "dare_ties"], "seeds": [1], "experts": {"sizes": [3]}}
    with opened(tmp_path / "grown", models, prepared, HashingPool(), **small) as run:
        run.run()
    pool = HashingPool()
    with opened(tmp_path / "grown", models, prepared, pool) as run:
        grown = run.run()
    assert len(pool.scored) == 4 * (1 + 1 + 2) - 2
    assert grown.rows == whole.outcome.rows


def test_two_methods_that_make_one_merge_share_its_score(
    tmp_path: Path, models: Path, prepared: PreparedJob
) -> None:
    pool = HashingPool()
    again = {"label": "again", "method": "linear"}
    changes = {"methods": ["linear", again], "experts": {"sizes": [3]}}
    with opened(tmp_path / "run", models, prepared, pool, **changes) as run:
        outcome = run.run()
    assert len(pool.scored) == 4 + 1
    soup, other = outcome.rows
    assert soup.normalised == other.normalised and (soup.method, other.method) == (
        "uniform soup",
        "again",
    )


def test_merges_that_fail_are_counted_and_named_and_the_rest_stands(
    tmp_path: Path, models: Path, prepared: PreparedJob
) -> None:
    with opened(tmp_path / "run", models, prepared, HashingPool(failing=["ties"])) as run:
        outcome = run.run()
    row = row_of(outcome, "TIES", 2)
    assert (row.merges, row.failed, row.normalised.held_in) == (3, 3, None)
    assert row_of(outcome, "DARE-TIES", 2).failed == 0
    assert sum("no logits" in note for note in outcome.notes) == 4


def test_a_grid_whose_experts_cannot_be_scored_ends(
    tmp_path: Path, models: Path, prepared: PreparedJob
) -> None:
    pool = HashingPool(failing=["linear"])
    with (
        opened(tmp_path / "run", models, prepared, pool) as run,
        pytest.raises(WorkerError, match="base cannot be scored: no logits"),
    ):
        run.run()


def test_a_search_is_one_more_method_scored_like_the_rest(
    tmp_path: Path, models: Path, prepared: PreparedJob
) -> None:
    pool = HashingPool()
    changes = {
        "methods": ["linear", EVOLVED],
        "experts": {"sizes": [2], "subsets": 1},
        "seeds": [4],
    }
    with opened(tmp_path / "run", models, prepared, pool, **changes) as run:
        outcome = run.run()
        [search] = (tmp_path / "run" / "searches").iterdir()
        [found] = run.study.noted("searches").values()
        merge = next(model for model in outcome.models if model.method == "evolved")
        trial = next(t for t in run.study.trials if str(t.key) == merge.candidate)
        assert trial.recipe.to_yaml() == found["recipe"]
    searched = {task for one in pool.scored if one.kind == "genome" for task in one.items}
    assert searched == {task for task, expert in HELD_IN.items() if expert in merge.experts}
    unseen = {task: set(prepared.suite.items(task, "test")) for task in searched}
    for one in pool.scored:
        if one.kind in ("genome", "baseline"):
            assert not any(set(ids) & unseen[task] for task, ids in one.items.items())
    assert (search / "study.db").exists()
    assert row_of(outcome, "evolved", 2).merges == 1


def test_a_search_that_has_ended_is_not_run_again_but_goes_on_with_more_budget(
    tmp_path: Path, models: Path, prepared: PreparedJob
) -> None:
    base = {"experts": {"sizes": [2], "subsets": 1}, "seeds": [4]}
    with opened(
        tmp_path / "run", models, prepared, HashingPool(), methods=[EVOLVED], **base
    ) as run:
        run.run()
    again, more = HashingPool(), HashingPool()
    with opened(tmp_path / "run", models, prepared, again, methods=[EVOLVED], **base) as run:
        run.run()
    assert not again.scored
    larger = {**EVOLVED, "budget": {"candidates": 12}}
    with opened(tmp_path / "run", models, prepared, more, methods=[larger], **base) as run:
        run.run()
    assert sum(one.kind == "genome" for one in more.scored) == 4
