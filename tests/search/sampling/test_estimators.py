"""The choice of an estimator: by errors on models left out, with a margin against chance."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.search.sampling.estimators import Measured, choose_estimator
from tests.search.sampling.worlds import clustered_world, logistic_world


def measured(kind: str, squared: list[float], tau: float = 0.5) -> Measured:
    return Measured(kind=kind, squared_errors=np.array(squared), rank_agreement=tau)  # type: ignore[arg-type]


def test_theory_is_chosen_where_it_holds() -> None:
    outcomes, *_ = logistic_world(0, models=40, items=300)
    choice = choose_estimator(outcomes, 20, seed=0)
    assert choice.kind in ("p_irt", "gp_irt")
    error = {entry.kind: entry.error for entry in choice.measured}
    assert error[choice.kind] < min(error["random"], error["anchors"])
    estimate = choice.plan(np.random.PCG64(0))
    assert len(estimate.items) == 20
    new, *_ = logistic_world(0, models=40, items=300)
    found = estimate.estimate(new[:, estimate.items])
    assert np.sqrt(((found - new.mean(axis=1)) ** 2).mean()) < error["random"]


def test_anchors_are_chosen_where_items_are_exact_clusters_and_outcomes_not_binary() -> None:
    responses, _ = clustered_world(0, models=20, sizes=(60, 50, 40, 30))
    shifted = responses + 0.25
    choice = choose_estimator(shifted, 4, seed=0)
    assert choice.kind == "anchors"
    assert [entry.kind for entry in choice.measured] == ["random", "informative", "anchors"]
    assert choice.measured[2].error < 1e-9
    assert choice.plan(np.random.PCG64(0)) is choice.plan(np.random.PCG64(1))


def test_fresh_draws_differ_by_their_bits() -> None:
    generator = np.random.default_rng(0)
    responses = (generator.random((8, 60)) < 0.5).astype(np.float64)
    responses[0, 0] = 0.5  # no theory
    choice = choose_estimator(responses, 10, seed=0)
    assert choice.kind in ("random", "informative")
    drawn = [tuple(choice.plan(np.random.PCG64(seed)).items.tolist()) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_parents_are_never_left_out_and_partly_scored_models_neither() -> None:
    outcomes, *_ = logistic_world(1, models=14, items=120)
    outcomes[5, 7] = np.nan
    choice = choose_estimator(outcomes, 20, seed=0, parents=(1, 13))
    assert choice.measured[-1].kind == "mp_irt"
    assert all(len(entry.squared_errors) == 11 for entry in choice.measured)


def test_the_more_elaborate_has_to_win_by_its_standard_error_and_rank_no_worse() -> None:
    simple = measured("random", [0.04, 0.05, 0.06, 0.05])
    assert measured("anchors", [0.02, 0.03, 0.03, 0.02]).beats(simple)
    assert not measured("anchors", [0.00, 0.09, 0.09, 0.01]).beats(simple)
    assert not measured("anchors", [0.02, 0.03, 0.03, 0.02], tau=0.4).beats(simple)


def test_a_report_says_what_was_measured_of_each() -> None:
    outcomes, *_ = logistic_world(2, models=10, items=100)
    choice = choose_estimator(outcomes, 15, seed=0)
    first, *rows, last = choice.sentences
    assert first == (
        "The mean over 100 items was estimated from 15, for 10 models left out in turn."
    )
    assert len(rows) == len(choice.measured) == 5
    assert rows[2].startswith(f"Anchors: error {choice.measured[2].error:.4f}, rank agreement ")
    assert last.startswith("Chosen: ")


def test_it_repeats_itself() -> None:
    outcomes, *_ = logistic_world(2, models=10, items=100)
    first, second = (choose_estimator(outcomes, 15, seed=3) for _ in range(2))
    assert first.sentences == second.sentences


@pytest.mark.parametrize(
    ("models", "count", "said"),
    [
        (10, 101, "count: 101 of 100 items; give 1 to 100"),
        (10, 0, "count: 0 of 100 items"),
        (5, 20, "3 models besides the parents were scored on every item; 4 are needed"),
    ],
)
def test_what_cannot_be_measured_is_refused(models: int, count: int, said: str) -> None:
    outcomes, *_ = logistic_world(2, models=models, items=100)
    with pytest.raises(ValueError, match=said):
        choose_estimator(outcomes, count, seed=0, parents=(0, 1))
