"""What is believed of the best candidates so far."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.evaluate.candidate import CandidateKey
from evomerge.search.sampling.elites import Elites, Measured


def key(place: int) -> CandidateKey:
    return CandidateKey(1, place)


def test_a_score_is_drawn_to_its_generations_mean_as_far_as_it_is_noise() -> None:
    elites = Elites()
    # Variance of the fitness: 1/10; of it, noise: 1/20. So half of a difference is believed.
    values = np.sqrt(0.1) * np.array([-1.0, 1.0]) / np.sqrt(2)
    elites.learn(
        {key(i): Measured(fitness=float(v), variance=0.05, items=10) for i, v in enumerate(values)}
    )
    best = elites.best(1)[0]
    assert best.key == key(0)
    assert best.fitness == pytest.approx(values[0] / 2)
    assert best.error == pytest.approx(np.sqrt(0.025))


def test_scores_on_other_items_make_it_surer() -> None:
    elites = Elites()
    elites.learn({key(i): Measured(fitness=-float(i), variance=0.1, items=10) for i in range(4)})
    before = elites.best(1)[0]
    elites.learn_again(before.key, Measured(fitness=-2.0, variance=0.1, items=10))
    after = next(elite for elite in elites.best(4) if elite.key == before.key)
    assert after.items == 20
    assert after.error < before.error
    assert -2.0 > after.fitness > before.fitness
    low, high = after.interval
    assert low < after.fitness < high


def test_luck_is_found_out() -> None:
    """Of 40 candidates alike but one, the one is found although others were luckier at first.

    100 searches; the better one is 1.5 deviations of noise above, and 12 looks at two are had.
    Without looking again the luckiest is it in some 20 of them.
    """
    found = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        true = np.zeros(40)
        true[7] = -0.06
        elites = Elites()
        elites.learn(
            {
                key(i): Measured(fitness=float(t + rng.normal(0, 0.04)), variance=0.0016, items=50)
                for i, t in enumerate(true)
            }
        )
        for _ in range(12):
            for elite in elites.best(2):
                value = true[elite.key.place] + rng.normal(0, 0.04)
                elites.learn_again(
                    elite.key, Measured(fitness=float(value), variance=0.0016, items=50)
                )
        found += elites.best(1)[0].key == key(7)
    assert found > 50


def test_certain_scores_are_taken_as_they_are() -> None:
    elites = Elites()
    elites.learn({key(i): Measured(fitness=float(i), variance=0.0, items=5) for i in range(3)})
    assert [elite.fitness for elite in elites.best(3)] == [0.0, 1.0, 2.0]
    assert elites.best(1)[0].error == 0.0


def test_equal_scores_of_all_are_no_certainty_of_more() -> None:
    elites = Elites()
    elites.learn({key(i): Measured(fitness=0.5, variance=0.01, items=5) for i in range(3)})
    assert [elite.key.place for elite in elites.best(3)] == [0, 1, 2]
    assert elites.best(1)[0].error > 0.0
