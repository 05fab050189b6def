from __future__ import annotations

from dataclasses import replace

import pytest

from evomerge.evaluate.candidate import MOST_FINALISTS, CandidateKey
from evomerge.job import BudgetSpec
from evomerge.report.tally import (
    Spent,
    best_of,
    failures_of,
    finalists_after,
    generations_of,
    limits_of,
    model_alone,
    parents_among,
    phase_of,
    remaining_worker_s,
    spending_of,
)
from evomerge.study import Study
from evomerge.study.notes import SELECTION
from tests.report.studies import BASE, FAILURE, SOURCES, MadeUpSearch, make_selection, run_through

SPENT = Spent(candidates=6, failed=0, items=600, merge_s=900.0, forward_s=800.0, other_s=100.0)


def test_generations_average_the_scored_and_count_the_failed(searched: Study) -> None:
    second = generations_of(searched.trials)[1]
    trials = [trial for trial in searched.trials if trial.key.generation == 2]
    scores = [trial.score for trial in trials if trial.score is not None]
    assert second.number == 2
    assert (second.scored, second.failed) == (3, 1)
    assert second.mean == pytest.approx(sum(scores) / 3)
    assert second.best == max(scores)
    assert (second.least, second.most) == (126, 126)


def test_parents_are_the_sources_on_their_own_not_the_base(searched: Study) -> None:
    parents = parents_among(searched.trials, searched.job)
    assert [parent.label for parent in parents] == ["arithmetic", "japanese"]
    assert [model_alone(parent, searched.job) for parent in parents] == list(SOURCES)
    base = searched.trials_of("baseline")[0]
    assert model_alone(base, searched.job) == BASE


def test_a_merge_of_several_is_no_model_alone(searched: Study) -> None:
    assert model_alone(searched.trials_of("baseline")[-1], searched.job) is None


def test_the_best_has_the_highest_score_and_failures_are_passed_over(searched: Study) -> None:
    genomes = searched.trials_of("genome")
    best = best_of(genomes)
    assert best is not None
    assert best.score == max(trial.score or 0.0 for trial in genomes)
    assert best_of([trial for trial in genomes if trial.failure]) is None


def test_spending_sums_every_part_once(searched: Study) -> None:
    trials = searched.trials
    spent = spending_of(trials)
    assert spent.candidates == len(trials)
    assert spent.worker_s == pytest.approx(
        sum(trial.cost.merge_s + trial.cost.evaluate_s for trial in trials)
    )


def test_the_shared_share_is_of_all_hops(searched: Study) -> None:
    assert spending_of(searched.trials).shared_share is None
    trial = searched.trials_of("genome")[0]
    routed = [
        replace(trial, cost=replace(trial.cost, hops=hops, shared_hops=shared))
        for hops, shared in ((100, 0), (300, 100))
    ]
    assert spending_of([trial, *routed]).shared_share == 0.25


def test_limits_come_with_the_nearest_to_its_end_first() -> None:
    limits = limits_of(BudgetSpec(candidates=60, hours=1.0, items=100_000), SPENT)
    assert [limit.unit for limit in limits] == ["hours", "candidates", "items"]
    assert [str(limit) for limit in limits] == [
        "0.50 of 1 worker hours",
        "6 of 60 candidates",
        "600 of 100,000 items",
    ]


@pytest.mark.parametrize(
    ("budget", "left_s"),
    [
        ({"candidates": 10}, 4 * 300.0),
        ({"hours": 1.0}, 1800.0),
        ({"items": 1000}, 4 * 300.0),
        ({"candidates": 10, "items": 700}, 300.0),
        ({"candidates": 5}, 0.0),
    ],
)
def test_the_first_limit_reached_ends_the_search(budget: dict[str, float], left_s: float) -> None:
    remaining = remaining_worker_s(
        BudgetSpec.model_validate(budget), SPENT, candidate_s=300.0, candidate_items=100.0
    )
    assert remaining == pytest.approx(left_s)


def test_failures_are_counted_by_reason(searched: Study) -> None:
    failed = sum(trial.failure is not None for trial in searched.trials)
    assert failures_of(searched.trials) == ((FAILURE, failed),)


def test_the_phase_follows_the_record(new_study: Study) -> None:
    search = MadeUpSearch(new_study, generations=2, population=4)
    assert phase_of(new_study) == "not started"
    run_through(search.baselines())
    assert phase_of(new_study) == "baselines"
    run_through(search.generation(1))
    assert phase_of(new_study) == "search"
    run_through(search.generation(2))
    run_through(search.finalists(-1, 2))
    assert phase_of(new_study) == "validation"
    run_through(search.finalists(-2, 2))
    assert phase_of(new_study) == "test"
    new_study.note(SELECTION, make_selection(after=2).to_json())
    assert phase_of(new_study) == "finished"
    run_through(search.generation(3))
    assert phase_of(new_study) == "search"


def test_finalists_are_told_apart_by_the_search_they_ended(searched: Study) -> None:
    assert len(finalists_after(searched.trials, 3)) == 10
    assert finalists_after(searched.trials, 4) == ()
    assert finalists_after(searched.trials, 3)[0].key == CandidateKey(-2, 3 * MOST_FINALISTS)
