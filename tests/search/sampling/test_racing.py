"""Races: who is stopped, how often wrongly, and what ranks result."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.evaluate.candidate import TaskItems
from evomerge.evaluate.metric import Metric
from evomerge.evaluate.objective import Constraint, Objective, Term
from evomerge.search.race import ERROR_RATE, find_losers, rank_fitness, resampled_fitness
from evomerge.search.sampling.sample import Sample, plain

ACC = Metric(task="task", key="acc", higher_is_better=True)
MEAN = Objective(terms=[Term(metric=ACC, weight=1.0)], aggregate="mean")


def results(outcomes: NDArray[np.float64]) -> list[dict[str, TaskItems]]:
    """outcomes: (candidates, items)."""
    ids = tuple(range(outcomes.shape[1]))
    return [{"task": TaskItems(ids=ids, metrics={"acc": tuple(row)})} for row in outcomes]


def resample(
    outcomes: NDArray[np.float64], objective: Objective = MEAN, thresholds: tuple[float, ...] = ()
) -> NDArray[np.float64]:
    sample = Sample(tasks={"task": plain(np.arange(outcomes.shape[1]))})
    bits = np.random.PCG64(0)
    return resampled_fitness(objective, sample, results(outcomes), thresholds, bits)


def test_resamples_are_those_of_the_mean() -> None:
    """Both are known of a bootstrap; 400 resamples give the deviation to some 4%."""
    rng = np.random.default_rng(0)
    outcomes = (rng.random((1, 80)) < 0.3).astype(np.float64)
    resampled = resample(outcomes)[:, 0]
    np.testing.assert_allclose(-resampled.mean(), outcomes.mean(), atol=0.01)
    np.testing.assert_allclose(resampled.std(), outcomes.std() / np.sqrt(80), rtol=0.15)


def test_candidates_are_compared_on_the_same_resamples() -> None:
    """Two that differ on no item never differ, however noisy each of them is."""
    rng = np.random.default_rng(1)
    row = (rng.random(40) < 0.5).astype(np.float64)
    resampled = resample(np.stack([row, row]))
    np.testing.assert_array_equal(resampled[:, 0], resampled[:, 1])


@pytest.mark.parametrize("size", [1.0, 40.0], ids=["shares", "scores up to 40"])
@pytest.mark.parametrize("threshold", [0.8, 0.0])
def test_a_broken_constraint_costs_as_in_a_generations_fitness(
    threshold: float, size: float
) -> None:
    threshold = size * threshold
    objective = Objective(
        terms=[Term(metric=ACC, weight=1.0)],
        aggregate="mean",
        constraints=[Constraint(metric=ACC, at_least=threshold, of=None)],
    )
    outcomes = np.full((2, 200), size)
    outcomes[1, :100] = 0.0
    outcomes -= 0.8 * size - threshold
    means = [{"task": {"acc": row.mean()}} for row in outcomes]
    expected = objective.fitness(means, thresholds=(threshold,))
    resampled = resample(outcomes, objective, (threshold,))
    np.testing.assert_allclose(resampled[:, 0], expected[0])
    np.testing.assert_allclose(resampled[:, 1].mean(), expected[1], rtol=0.05)


def test_a_hopeless_candidate_is_stopped_and_a_close_one_is_not() -> None:
    rng = np.random.default_rng(2)
    outcomes = (rng.random((6, 60)) < 0.6).astype(np.float64)
    outcomes[5] = 0.0
    outcomes[4] = outcomes[0]
    losers = find_losers(resample(outcomes), better=3, looks=1)
    assert losers[5]
    assert not losers[4]


def test_the_better_half_stays() -> None:
    rng = np.random.default_rng(3)
    outcomes = (rng.random((8, 200)) < np.linspace(0.1, 0.9, 8)[:, None]).astype(np.float64)
    losers = find_losers(resample(outcomes), better=4, looks=1)
    assert not losers[4:].any()
    assert losers[:3].all()


def test_equals_are_stopped_no_more_often_than_stated() -> None:
    """Candidates that are all alike: whoever is not in the better half by chance is stopped in at
    most ERROR_RATE of the cases. Of 300 generations of 6, binomial: 5 standard errors above it is
    never reached. The middle one is not chosen in advance but is the luckier, so the rate of one
    look is held against the whole rate, which a generation has over all looks.
    """
    rng = np.random.default_rng(4)
    stopped = total = 0
    for _ in range(300):
        outcomes = (rng.random((6, 60)) < 0.5).astype(np.float64)
        losers = find_losers(resample(outcomes), better=3, looks=3)
        stopped += int(losers.sum())
        total += 6
    assert stopped / total < ERROR_RATE + 5 * np.sqrt(ERROR_RATE * (1 - ERROR_RATE) / total)


def test_whoever_went_further_ranks_before_whoever_was_stopped() -> None:
    fitness = np.array([-0.9, -0.5, -0.7, -0.8])  # lower is better
    blocks = np.array([1, 3, 3, 2])
    ranked = rank_fitness(fitness, blocks)
    assert np.argsort(ranked).tolist() == [2, 1, 3, 0]
    np.testing.assert_array_equal(ranked[[1, 2]], fitness[[1, 2]])


def test_ranks_of_candidates_that_were_never_stopped_are_their_fitness() -> None:
    fitness = np.array([-0.9, -0.5, -0.7])
    np.testing.assert_array_equal(rank_fitness(fitness, np.array([2, 2, 2])), fitness)


def test_a_stopped_candidate_never_ties_with_one_that_went_on() -> None:
    rng = np.random.default_rng(5)
    for _ in range(2000):
        fitness = -rng.random(4)
        ranked = rank_fitness(fitness, np.array([2, 2, 1, 1]))
        assert ranked[2:].min() > ranked[:2].max()
