"""What a front gains: by hand on few items, and how often it claims what is not there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, norm

from evomerge.evaluate.candidate import TaskItems
from evomerge.evaluate.inference.fronts import box_of, front_gain
from evomerge.evaluate.metric import Metric
from evomerge.evaluate.objective import Objective, Term, means_of

OBJECTIVE = Objective(
    terms=[
        Term(metric=Metric(task=task, key="acc", higher_is_better=True), weight=1.0)
        for task in ("one", "two")
    ],
    aggregate="mean",
)
PARENTS = ((0.8, 0.3), (0.3, 0.8))


def answers(models, items: int, seed: int, alike: float = 0.8):
    """Item results of models with these accuracies on both tasks, correlated over models."""
    draw = np.random.default_rng(seed)
    latent = np.sqrt(alike) * draw.standard_normal((2, 1, items))
    latent = latent + np.sqrt(1 - alike) * draw.standard_normal((2, len(models), items))
    solved = latent < norm.ppf(np.array(models)).T[:, :, None]  # (tasks, models, items)
    return [
        {
            task: TaskItems(ids=tuple(range(items)), metrics={"acc": tuple(map(float, row[place]))})
            for task, row in zip(("one", "two"), solved, strict=True)
        }
        for place in range(len(models))
    ]


def gain_of(members, parents, **options):
    box = box_of(OBJECTIVE.losses([means_of(scores) for scores in parents]))
    return front_gain(OBJECTIVE, members, parents, box=box, seed=0, resamples=400, **options)


def test_the_box_ends_at_the_best_parent_and_a_tenth_beyond_the_worst():
    box = box_of(np.array([[-0.8, -0.3], [-0.3, -0.8]]))
    np.testing.assert_allclose(box.ideal, [-0.8, -0.8])
    np.testing.assert_allclose(box.reference, [-0.25, -0.25])
    assert box.volume(np.array([[-0.8, -0.8]])) == pytest.approx(1.0)
    # Each parent is as good as the best on one axis, and a tenth of the range inside on the other.
    corner = 0.05 / 0.55
    both = box.volume(np.array([[-0.8, -0.3], [-0.3, -0.8]]))
    assert both == pytest.approx(2 * corner - corner**2)


def test_parents_that_agree_have_a_box_with_room():
    box = box_of(np.array([[-0.5, 0.0], [-0.5, 0.0]]))
    assert (box.reference > box.ideal).all()


def test_the_parents_themselves_gain_nothing_and_dominate_nothing():
    parents = answers(PARENTS, 60, seed=1)
    found = gain_of(parents, parents)
    assert (found.gain.value, found.gain.low) == (0.0, 0.0)
    assert found.volume == found.others_volume
    assert not found.dominates.any()


def test_a_merge_that_solves_everything_surely_dominates_and_gains():
    parents = answers(PARENTS, 100, seed=2)
    [perfect] = answers(((1 - 1e-12, 1 - 1e-12),), 100, seed=2)
    found = gain_of([perfect], parents)
    assert found.dominates.tolist() == [[True, True]]
    assert found.surely_dominates.tolist() == [[True, True]]
    assert found.gain.low > 0.0


def test_copies_of_the_parents_are_not_taken_for_a_gain():
    """True gain 0 in 60 worlds, where a bootstrap of percentiles claims one every second time.

    At most 5% may be claimed; as many as tolerated here come about less than once in 10,000.
    """
    models = (*PARENTS, *((PARENTS[0],) * 4), *((PARENTS[1],) * 4))
    claims = sure = 0
    for seed in range(60):
        scores = answers(models, 80, seed)
        found = gain_of(scores[2:], scores[:2])
        claims += found.gain.low > 0.0
        sure += bool(found.surely_dominates.any())
    tolerated = int(binom.isf(1e-4, 60, 0.05))
    assert claims <= tolerated
    assert sure <= tolerated


def test_a_real_front_is_claimed_given_items():
    models = (*PARENTS, (0.78, 0.4), (0.7, 0.55), (0.6, 0.6), (0.55, 0.7), (0.4, 0.78))
    lows = []
    for seed in range(10):
        scores = answers(models, 400, seed)
        lows.append(gain_of(scores[2:], scores[:2]).gain.low)
    assert np.mean(np.array(lows) > 0.0) > 0.9
