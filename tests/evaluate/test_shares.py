"""Shares of items are compared item by item, and a difference is sure only if chance is not."""

from __future__ import annotations

import numpy as np

from evomerge.evaluate.inference.shares import share_differences


def test_the_difference_is_that_of_the_shares() -> None:
    first = [True] * 30 + [False] * 70
    second = [True] * 10 + [False] * 90
    [up, down, none] = share_differences([(first, second), (second, first), (first, first)], seed=0)
    assert np.isclose(up.interval.value, 0.2) and up.settled
    assert np.isclose(down.interval.value, -0.2) and down.settled
    assert none.interval.value == 0.0 and not none.settled


def test_one_answer_of_a_hundred_is_chance() -> None:
    [few] = share_differences([([True] + [False] * 99, [False] * 100)], seed=0)
    assert not few.settled


def test_models_that_are_alike_are_rarely_told_apart() -> None:
    """At most one family of three in twenty; 14 or more of 100 are rarer than 1 in 1,000."""
    draw = np.random.default_rng(5)
    wrong = 0
    for seed in range(100):
        flags = draw.random((4, 60)) < 0.2
        first, *others = (row.tolist() for row in flags)
        differences = share_differences([(first, other) for other in others], seed=seed)
        wrong += any(difference.settled for difference in differences)
    assert wrong <= 13
