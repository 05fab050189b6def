"""Fronts, crowding and hypervolume against slow references and Optuna's own."""

import itertools

import numpy as np
import optuna
import pytest
from optuna._hypervolume import compute_hypervolume

from evomerge.evaluate.inference.fronts import (
    crowding,
    dominated_by,
    front_order,
    fronts,
    hypervolume,
)


def some_losses(n: int, axes: int, seed: int):
    """In steps of an eighth, so that there are ties and equal rows."""
    return np.round(np.random.default_rng(seed).random((n, axes)) * 8) / 8


def slowly_dominates(a, b) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(
        x < y for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("axes", [2, 3])
def test_dominated_is_nowhere_better_and_somewhere_worse(axes):
    losses = some_losses(30, axes, 1)
    found = dominated_by(losses)
    for i, j in itertools.product(range(30), repeat=2):
        assert found[i, j] == slowly_dominates(losses[j], losses[i])


def test_the_feasible_comes_before_the_better_and_less_broken_before_more():
    losses = np.array([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5], [2.0, 2.0]])
    violation = np.array([0.3, 0.0, 0.1, 0.0])
    assert fronts(losses, violation).tolist() == [3, 0, 2, 1]


@pytest.mark.parametrize("violated", [False, True])
def test_fronts_are_optunas(violated):
    """By peeling off Optuna's best trials, front after front."""
    losses = some_losses(25, 3, 2)
    violation = np.maximum(0.0, some_losses(25, 1, 3)[:, 0] - 0.5) * violated
    left = list(range(25))
    expected = np.empty(25, dtype=int)
    for rank in itertools.count():
        study = optuna.create_study(directions=["minimize"] * 3)
        for one in left:
            study.add_trial(
                optuna.trial.create_trial(
                    values=losses[one].tolist(), constraints={"broken": violation[one]}
                )
            )
        best = [left[trial.number] for trial in study.best_trials]
        if not best:  # Optuna counts what breaks constraints to no front
            break
        expected[best] = rank
        left = [one for one in left if one not in best]
        if not left:
            break
    kept = np.setdiff1d(np.arange(25), left)
    assert np.array_equal(fronts(losses, violation)[kept], expected[kept])
    if left:
        assert fronts(losses, violation)[left].min() > expected[kept].max()


def test_crowding_is_the_papers_sum_of_gaps():
    losses = np.array([[0.0, 4.0], [1.0, 2.0], [2.0, 1.0], [4.0, 0.0]])
    assert crowding(losses).tolist() == [np.inf, 2 / 4 + 3 / 4, 3 / 4 + 2 / 4, np.inf]
    assert crowding(np.ones((3, 2))).tolist() == [0.0, 0.0, 0.0]


def test_the_order_is_by_front_then_least_crowded():
    losses = np.array([[1.0, 1.0], [0.0, 1.0], [0.4, 0.5], [0.5, 0.45], [1.0, 0.0]])
    assert front_order(losses).tolist() == [1, 4, 3, 2, 0]


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_hypervolume_is_optunas(axes):
    """To rounding of sums in another order; dominated rows and ones beyond the reference too."""
    reference = np.full(axes, 0.9)
    fronts_of = np.stack([some_losses(7, axes, seed) for seed in range(20)])
    inside = [front[(front <= reference).all(axis=1)] for front in fronts_of]
    expected = [compute_hypervolume(front, reference) for front in inside]
    np.testing.assert_allclose(hypervolume(fronts_of, reference), expected, rtol=1e-12)


def test_nothing_has_no_volume():
    assert hypervolume(np.empty((0, 2)), np.ones(2)) == 0.0
