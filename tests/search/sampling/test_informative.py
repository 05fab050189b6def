"""Informative draws: unbiased whatever a candidate answers, and better where models agree."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.search.sampling.informative import (
    EVEN_SHARE,
    disagreement,
    draw_informative,
    draw_probabilities,
    draw_weighted,
    inclusion_probabilities,
    predict_items,
)

NAN = float("nan")
FROZEN_DRAW = (4, 5, 9, 12, 23, 26, 33, 37)


def bits(*key: int) -> np.random.PCG64:
    return np.random.PCG64(np.random.SeedSequence(key))


def uneven(number: int, seed: int = 0) -> np.ndarray:
    sizes = np.random.default_rng(seed).random(number) ** 3 + 0.01
    return sizes / sizes.sum()


def settled_world(seed: int, *, models: int = 30, items: int = 400) -> np.ndarray:
    """Outcomes on items of which three quarters are answered alike by nearly every model."""
    generator = np.random.default_rng(seed)
    rates = np.where(
        generator.random(items) < 0.75,
        np.where(generator.random(items) < 0.6, 0.995, 0.005),
        generator.random(items),
    )
    return (generator.random((models, items)) < rates).astype(np.float64)


def test_draws_are_those_of_earlier_versions() -> None:
    """Frozen: a resumed search must draw the items it drew before."""
    items, _ = draw_weighted(uneven(40), 8, bits(7, 3))
    assert tuple(items.tolist()) == FROZEN_DRAW


@pytest.mark.parametrize("count", [1, 7, 20, 39, 40])
def test_a_draw_has_the_size_asked_for_and_the_probabilities_sum_to_it(count: int) -> None:
    probabilities = uneven(40)
    items, inclusion = draw_weighted(probabilities, count, bits(1))
    assert len(items) == count
    assert (np.diff(items) > 0).all()
    every = inclusion_probabilities(probabilities, count)
    assert every.sum() == pytest.approx(count, rel=1e-12)
    assert every.max() <= 1.0
    np.testing.assert_array_equal(every[items], inclusion)


def test_every_item_is_drawn_as_often_as_its_probability_says() -> None:
    """4,000 draws; 5 standard deviations over 30 items fail in one of 50,000 seeds, this is one."""
    probabilities = uneven(30)
    expected = inclusion_probabilities(probabilities, 9)
    times = np.zeros(30)
    for run in range(4000):
        times[draw_weighted(probabilities, 9, bits(run))[0]] += 1
    error = np.sqrt(expected * (1 - expected) / 4000)
    assert (np.abs(times / 4000 - expected) <= 5 * error + 1e-12).all()


@pytest.mark.parametrize("count", [0, 11])
def test_an_impossible_count_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"count: {count} of 10 items cannot be drawn"):
        draw_weighted(np.ones(10), count, bits(0))


def test_an_item_that_could_never_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="not all are positive and finite"):
        draw_weighted(np.array([0.5, 0.5, 0.0]), 2, bits(0))


DRAWS = 600


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Four candidates (4, 300), and estimates (DRAWS, 4) of their means.

    Two are like the recent ones, one answers the contrary of one of them, one answers by chance.
    """
    recent = settled_world(0, models=62, items=300)
    chance = np.random.default_rng(2).random(300)
    candidates = np.stack([recent[0], recent[1], 1.0 - recent[2], chance])
    estimates = []
    for run in range(DRAWS):
        sample = draw_informative(recent[2:], 40, bits(5, run))
        estimates.append(sample.estimate(candidates[:, sample.items]))
    return candidates, np.array(estimates)


def test_estimates_are_unbiased_whatever_a_candidate_answers(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    """Within 4 standard errors; that fails in one of 4,000 seeds, and the seed is fixed."""
    candidates, estimates = drawn
    error = estimates.std(axis=0) / np.sqrt(DRAWS)
    assert (np.abs(estimates.mean(axis=0) - candidates.mean(axis=1)) < 4 * error).all()


def test_differences_and_levels_are_surer_than_by_plain_draws(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    """Plain draws of 40 of 300 have the textbook variance."""
    candidates, estimates = drawn
    first, second = candidates[:2]
    fewer = 1.0 - 40 / 300
    plain_difference = (first - second).var() / 40 * fewer
    assert np.var(estimates[:, 0] - estimates[:, 1]) < 0.7 * plain_difference
    assert np.var(estimates[:, 0]) < 0.3 * first.var() / 40 * fewer


def test_disagreement_is_the_expected_variance_and_grows_less_sure_with_fewer_outcomes() -> None:
    responses = np.full((40, 4), NAN)
    responses[:, 0] = 1.0
    responses[:4, 1] = 1.0
    responses[:, 2] = np.arange(40) % 2
    found = disagreement(responses)
    assert found[0] < found[1] < found[3] < found[2]  # never scored: what items are in general
    assert found[2] == pytest.approx(0.25, rel=0.05)
    expected = predict_items(responses)
    assert expected[0] > expected[1] > expected[3] > expected[2]
    assert expected[3] == pytest.approx(np.nanmean(responses))


def test_outcomes_that_are_no_zeros_and_ones_disagree_by_their_variance() -> None:
    generator = np.random.default_rng(0)
    spread = np.array([0.0, 1.0, 3.0])
    responses = 10.0 + spread * generator.standard_normal((200, 3))
    found = disagreement(responses)
    # 200 outcomes give a variance to 10%; three times that.
    np.testing.assert_allclose(found[1:], spread[1:] ** 2, rtol=0.3)
    assert 0.0 < found[0] < 0.1


def test_no_item_is_forgotten_and_no_weight_is_large() -> None:
    probabilities = draw_probabilities(np.array([0.0] * 90 + [0.25] * 10))
    assert probabilities.sum() == pytest.approx(1.0)
    assert probabilities.min() == pytest.approx(EVEN_SHARE / 100)
    assert probabilities.max() > 0.08
    np.testing.assert_array_equal(draw_probabilities(np.zeros(4)), np.full(4, 0.25))
