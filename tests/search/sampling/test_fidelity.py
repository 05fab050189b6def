"""How many items a generation takes: as many as tell its candidates apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evomerge.search.budget import RANGE, RELIABILITY, Fidelity


def resampled(
    signal: float, noise: float, rng: np.random.Generator, candidates: int = 12
) -> NDArray[np.float64]:
    """Resampled fitness of candidates whose true fitness has deviation `signal`."""
    true = rng.normal(0.0, signal, candidates)
    measured = true + rng.normal(0.0, noise, candidates)
    return measured + rng.normal(0.0, noise, (400, candidates))


def told(signal: float, noise: float, *, items: int = 200) -> Fidelity:
    rng = np.random.default_rng(0)
    fidelity = Fidelity(200, least=2, most=10_000)
    for _ in range(60):
        fidelity.learn(resampled(signal, noise, rng), items)
    return fidelity


def test_a_search_begins_with_half_of_what_the_job_names() -> None:
    assert Fidelity(200, least=2, most=10_000).items() == 100


def test_items_follow_from_signal_and_noise() -> None:
    """With 200 items noise is as large as the signal; the wanted share of signal needs
    ρ / (1 - ρ) times as many. What is remembered are some 200 degrees of freedom, so the variance
    of the scores is known to 10%, that of the signal to 20%; three times that is allowed."""
    expected = RELIABILITY / (1 - RELIABILITY) * 200
    assert 0.62 * expected < told(0.02, 0.02).items() < 1.6 * expected


def test_closer_candidates_take_more_items() -> None:
    assert told(0.03, 0.02).items() < told(0.02, 0.02).items() < told(0.01, 0.02).items()


def test_candidates_that_noise_alone_tells_apart_take_the_most() -> None:
    assert told(0.0, 0.05).items() > 0.5 * RANGE * 200


def test_bounds_hold() -> None:
    assert told(1.0, 0.001).items() == 200 / RANGE
    assert told(0.0, 1.0).items() <= RANGE * 200
    assert told(0.0, 1.0).items(affordable=90) == 90
    assert told(0.0, 1.0).items(affordable=1) == 200 / RANGE


def test_a_generation_of_one_teaches_nothing() -> None:
    fidelity = Fidelity(200, least=2, most=10_000)
    fidelity.learn(np.zeros((400, 1)), 50)
    assert fidelity.items() == 100
