"""Item response theory: known parameters come back, abilities follow from few outcomes."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.search.sampling.anchors import choose_anchors
from evomerge.search.sampling.irt import (
    LOG_DISCRIMINATION_SPREAD,
    AbilityEstimate,
    ItemCurves,
    fit_item_curves,
    measure_blend,
)
from tests.search.sampling.worlds import logistic_world


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def test_known_parameters_come_back() -> None:
    """50 models, 400 items. The bounds are a tenth below what other seeds give."""
    outcomes, discrimination, difficulty, ability = logistic_world(0, models=50, items=400)
    curves = fit_item_curves(outcomes)
    assert correlation(curves.abilities[:, 0], ability) > 0.98
    assert correlation(curves.difficulty, difficulty) > 0.9
    assert correlation(np.log(curves.discrimination[:, 0]), np.log(discrimination)) > 0.55
    assert (curves.discrimination > 0.0).all()
    predicted = curves.predict(curves.abilities)
    np.testing.assert_allclose(predicted.mean(axis=1), outcomes.mean(axis=1), atol=0.03)


def test_the_fit_is_where_the_posterior_is_stationary() -> None:
    """Moving any model's ability by a little either way makes its outcomes and prior less likely.

    Difficulties and slopes held, the posterior of one ability is that of a logistic regression.
    """
    outcomes, *_ = logistic_world(2, models=12, items=200)
    curves = fit_item_curves(outcomes)

    def log_posterior(ability: np.ndarray) -> np.ndarray:
        chance = curves.predict(ability)
        fit = outcomes * np.log(chance) + (1.0 - outcomes) * np.log1p(-chance)
        return np.asarray(fit.sum(axis=1) - 0.5 * ability[:, 0] ** 2)

    best = log_posterior(curves.abilities)
    for step in (-0.05, 0.05):
        assert (log_posterior(curves.abilities + step) < best).all()

    def log_posterior_of_slopes(slopes: np.ndarray) -> np.ndarray:
        moved = ItemCurves(
            discrimination=slopes, difficulty=curves.difficulty, abilities=curves.abilities
        )
        chance = moved.predict(curves.abilities)
        fit = outcomes * np.log(chance) + (1.0 - outcomes) * np.log1p(-chance)
        prior = 0.5 * np.log(slopes[:, 0]) ** 2 / LOG_DISCRIMINATION_SPREAD**2
        return np.asarray(fit.sum(axis=0) - prior)

    best = log_posterior_of_slopes(curves.discrimination)
    for factor in (0.9, 1.1):
        assert (log_posterior_of_slopes(curves.discrimination * factor) < best).all()


def test_missing_outcomes_are_left_out() -> None:
    outcomes, _, difficulty, ability = logistic_world(1, models=50, items=400)
    missing = np.random.default_rng(0).random(outcomes.shape) < 0.5
    curves = fit_item_curves(np.where(missing, np.nan, outcomes))
    assert correlation(curves.abilities[:, 0], ability) > 0.96
    assert correlation(curves.difficulty, difficulty) > 0.85
    # What nobody was scored on, and who was scored on nothing, stay where the priors have them.
    blank = np.full((outcomes.shape[0] + 1, outcomes.shape[1] + 1), np.nan)
    blank[:-1, :-1] = outcomes
    curves = fit_item_curves(blank)
    assert curves.abilities[-1, 0] == pytest.approx(0.0, abs=0.01)
    assert curves.discrimination[-1, 0] == pytest.approx(1.0, abs=0.01)
    assert curves.difficulty[-1] == pytest.approx(curves.difficulty[:-1].mean(), abs=0.05)


def test_abilities_of_new_models_follow_from_few_outcomes() -> None:
    outcomes, _, _, ability = logistic_world(3, models=140, items=500)
    curves = fit_item_curves(outcomes[:40])
    items = np.arange(0, 500, 5)
    found = curves.estimate_abilities(outcomes[40:][:, items], items)
    assert found.shape == (100, 1)
    assert correlation(found[:, 0], ability[40:]) > 0.93
    # One outcome moves an ability to where the prior's slope is the likelihood's.
    prior = curves.abilities.var() + 0.01
    one = curves.estimate_abilities(np.ones((1, 1)), np.array([3]))
    away = (one[0, 0] - curves.abilities.mean()) / prior
    missed = 1.0 - curves.predict(one)[0, 3]
    assert away == pytest.approx(curves.discrimination[3, 0] * missed, rel=1e-6)
    # Without outcomes the prior speaks: the mean of the models fitted.
    nothing = curves.estimate_abilities(np.zeros((1, 0)), np.zeros(0, dtype=np.int64))
    assert nothing[0, 0] == pytest.approx(curves.abilities.mean())


def test_combined_abilities_lie_in_the_span_of_the_parents() -> None:
    """Three dimensions, two parents: what is off their plane cannot be reached."""
    generator = np.random.default_rng(0)
    curves = ItemCurves(
        discrimination=np.exp(0.5 * generator.standard_normal((600, 3))),
        difficulty=generator.standard_normal(600),
        abilities=np.array([[1.0, 0.0, 0.5], [-0.5, 1.0, 0.0], [0.0, 0.0, 0.0]]),
    )
    true_weights = np.array([[0.7, 0.6], [0.1, 0.2]])
    chance = curves.predict(true_weights @ curves.abilities[:2])
    outcomes = (generator.random(chance.shape) < chance).astype(np.float64)
    found = curves.combine_abilities(outcomes, np.arange(600), np.array([0, 1]))
    weights, residual, *_ = np.linalg.lstsq(curves.abilities[:2].T, found.T, rcond=None)
    assert residual.max() < 1e-20
    # 600 outcomes tell a weight to about 0.1; three times that.
    np.testing.assert_allclose(weights.T, true_weights, atol=0.3)


def test_several_dimensions_predict_what_one_cannot() -> None:
    """Two skills that models have independently."""
    generator = np.random.default_rng(5)
    skills = 1.5 * generator.standard_normal((40, 2))
    chance = 1.0 / (1.0 + np.exp(-2.0 * np.repeat(skills, 150, axis=1)))
    outcomes = (generator.random(chance.shape) < chance).astype(np.float64)
    errors = []
    for dimensions in (1, 2):
        curves = fit_item_curves(outcomes, dimensions=dimensions, seed=0)
        errors.append(float(np.abs(curves.predict(curves.abilities) - chance).mean()))
    assert errors[1] < 0.8 * errors[0]


def test_estimates_keep_observed_outcomes_and_blend_with_anchors() -> None:
    outcomes, *_ = logistic_world(6, models=45, items=300)
    known, new = outcomes[:25], outcomes[25:]
    anchors = choose_anchors(known, 30, seed=0)
    curves = fit_item_curves(known)
    estimates = {
        blend: AbilityEstimate(curves=curves, anchors=anchors, parents=None, blend=blend).estimate(
            new[:, anchors.items]
        )
        for blend in (0.0, 0.5, 1.0)
    }
    np.testing.assert_array_equal(estimates[1.0], anchors.estimate(new[:, anchors.items]))
    np.testing.assert_allclose(estimates[0.5], (estimates[0.0] + estimates[1.0]) / 2)
    errors = estimates[0.0] - new.mean(axis=1)
    plain = np.sqrt((new.var(axis=1) / 30 * 0.9).mean())
    assert np.sqrt((errors**2).mean()) < 0.8 * plain
    everything = choose_anchors(known, 300, seed=0)
    whole = AbilityEstimate(curves=curves, anchors=everything, parents=None, blend=0.0)
    np.testing.assert_allclose(whole.estimate(new), new.mean(axis=1))


def test_theory_is_believed_less_where_it_errs_more() -> None:
    fitting, *_ = logistic_world(7, models=30, items=300)
    odd = fitting.copy()  # every other item asks for a skill of which the rest says nothing
    odd[:, 1::2] = np.roll(odd[:, 1::2], 7, axis=0)
    assert 0.0 < measure_blend(fitting, 40) < measure_blend(odd, 40) < 1.0
    assert measure_blend(odd, 10) < measure_blend(odd, 100)


def test_outcomes_that_are_no_zeros_and_ones_are_refused() -> None:
    with pytest.raises(ValueError, match="other than 0 and 1"):
        fit_item_curves(np.array([[0.5, 1.0], [0.0, 1.0]]))
