"""Differences of a family: exact where they can be, and as often wrong together as they say."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from evomerge.evaluate.candidate import TaskItems
from evomerge.evaluate.inference.intervals import resample_terms
from evomerge.evaluate.inference.simultaneous import (
    Difference,
    read_difference,
    simultaneous_differences,
)
from evomerge.evaluate.metric import Metric
from evomerge.evaluate.objective import Objective, Term

Model = dict[str, TaskItems]


def objective(*tasks: str, aggregate: str = "mean") -> Objective:
    return Objective(
        terms=[
            Term(metric=Metric(task=task, key="acc", higher_is_better=True), weight=1.0)
            for task in tasks
        ],
        aggregate=aggregate,  # type: ignore[arg-type]
    )


def model(**columns: np.ndarray) -> Model:
    return {
        task: TaskItems(ids=tuple(range(len(column))), metrics={"acc": tuple(map(float, column))})
        for task, column in columns.items()
    }


def only_difference(first: Model, second: Model, *, resamples: int = 10_000) -> Difference:
    pairs = [(first, second)]
    [found] = simultaneous_differences(objective("a"), pairs, seed=0, resamples=resamples)
    return found


def test_one_difference_has_the_p_value_of_all_exchanges() -> None:
    """Nine items differ, eight of them one way; all 2^9 signs can be listed."""
    first, second = np.zeros(20), np.zeros(20)
    first[:8] = second[8] = 1.0
    signs = np.array(list(itertools.product((-1, 1), repeat=9)))
    exact = float(np.mean(np.abs(signs.sum(axis=1)) >= 7))
    found = only_difference(model(a=first), model(a=second), resamples=40_000)
    # 40,000 draws know 0.039 to a standard error of 0.001.
    assert found.p == pytest.approx(exact, abs=0.004)
    assert found.settled
    assert found.interval.value == pytest.approx(7 / 20)


def test_few_items_that_all_agree_settle_nothing_where_a_bootstrap_would() -> None:
    """Four items differ, all one way: by a sign test p is 1/8."""
    first = np.array([1.0] * 4 + [0.0] * 20)
    second = np.zeros(24)
    found = only_difference(model(a=first), model(a=second))
    assert found.p == pytest.approx(1 / 8, abs=0.02)
    assert found.interval.low < 0.0
    drawn = resample_terms(objective("a"), [model(a=first), model(a=second)], seed=0)[:, :, 0]
    assert np.quantile(drawn[0] - drawn[1], 0.025) > 0.0


@pytest.mark.parametrize("items", [8, 63])
def test_models_that_agree_on_all_items_may_still_differ_elsewhere(items: int) -> None:
    same = model(a=np.arange(items) % 2)
    found = only_difference(same, same)
    may = 1.0 - 0.05 ** (1 / items)
    assert found.interval.value == 0.0
    assert found.interval.high == -found.interval.low == pytest.approx(may)
    assert found.p == 1.0
    assert found.items_to_settle(items) is None
    assert simultaneous_differences(objective("a"), [], seed=0) == []


@pytest.mark.parametrize("differing", [1, 2, 5, 6, 9])
def test_an_interval_of_few_differing_items_is_never_narrower_than_of_none(differing: int) -> None:
    first, second = np.zeros(63), np.zeros(63)
    first[:differing] = 1.0
    found = only_difference(model(a=first), model(a=second))
    none = only_difference(model(a=second), model(a=second))
    assert found.interval.high - found.interval.value >= none.interval.high
    assert found.settled == (found.p <= 0.05) == (differing >= 6)


def test_many_items_give_the_width_of_the_standard_error() -> None:
    generator = np.random.default_rng(1)
    a, b = generator.random(400), generator.normal(0.0, 2.0, 600)
    zeros = {"a": np.zeros(400), "b": np.zeros(600)}
    [found] = simultaneous_differences(
        objective("a", "b"), [(model(a=a - 0.5, b=b), model(**zeros))], seed=0
    )
    error = 0.5 * math.sqrt(a.var() / 400 + b.var() / 600)
    # A quantile of 10,000 resamples is known to about 2%; the means are near 0.
    assert found.interval.high - found.interval.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_the_interval_and_the_p_value_say_the_same() -> None:
    generator = np.random.default_rng(2)
    seen = set()
    for seed in range(60):
        start = generator.random(30) < 0.5
        models = [model(a=start ^ (generator.random(30) < 0.25)) for _ in range(4)]
        pairs = [(models[0], other) for other in models[1:]]
        for found in simultaneous_differences(objective("a"), pairs, seed=seed, resamples=999):
            assert found.settled == (found.p <= 0.05)
            seen.add(found.settled)
    assert seen == {True, False}


def test_a_family_widens_the_intervals_and_no_more_than_bonferroni() -> None:
    generator = np.random.default_rng(3)
    others = [model(a=generator.random(200) < 0.5) for _ in range(6)]
    best = model(a=generator.random(200) < 0.5)
    pairs = [(best, other) for other in others]
    family = simultaneous_differences(objective("a"), pairs, seed=0)
    for pair, found in zip(pairs, family, strict=True):
        [alone] = simultaneous_differences(objective("a"), [pair], seed=0)
        [sixth] = simultaneous_differences(objective("a"), [pair], seed=0, confidence=1 - 0.05 / 6)
        assert alone.interval.high < found.interval.high
        # The atoms of 200 items and 10,000 draws blur the tail by a few hundredths.
        assert found.interval.high - found.interval.value < 1.04 * (
            sixth.interval.high - sixth.interval.value
        )


def wrong(draw: Callable[[np.random.Generator], list[Model]], runs: int, aggregate: str) -> int:
    """How often models of equal truth are told apart, any of them from any other."""
    generator, count = np.random.default_rng(4), 0
    for run in range(runs):
        pairs = list(itertools.combinations(draw(generator), 2))
        found = simultaneous_differences(
            objective("a", "b", aggregate=aggregate), pairs, seed=run, confidence=0.9, resamples=399
        )
        count += any(each.settled for each in found)
    return count


@pytest.mark.parametrize("aggregate", ["mean", "geometric", "min"])
@pytest.mark.parametrize("items", [12, 80])
def test_equal_models_are_told_apart_no_more_often_than_said(items: int, aggregate: str) -> None:
    """300 families of four equal models, all six pairs at once, at 90%.

    With a true rate of 0.1 the count is binomial(300, 0.1): above 46 once in 1,000 seeds. The seed
    is fixed, so the test fails always or never.
    """

    def draw(generator: np.random.Generator) -> list[Model]:
        truth = {task: generator.random(items) < 0.6 for task in "ab"}
        return [
            model(**{task: truth[task] ^ (generator.random(items) < 0.2) for task in "ab"})
            for _ in range(4)
        ]

    assert wrong(draw, 300, aggregate) <= 46


@pytest.mark.parametrize("aggregate", ["mean", "geometric"])
def test_intervals_hold_the_truth_together_as_often_as_they_say(aggregate: str) -> None:
    """300 times three unequal models minus a fourth, at 90%: all three, at least 253 times.

    Binomial(300, 0.9) is below 253 less than once in 1,000 seeds.
    """
    generator, held = np.random.default_rng(5), 0
    rates = {"a": (0.8, 0.6, 0.5, 0.55), "b": (0.45, 0.5, 0.65, 0.5)}
    combined = objective("a", "b", aggregate=aggregate)
    truth = combined.combine(np.array([rates["a"], rates["b"]]).T)
    for run in range(300):
        easy = {task: generator.random(100) for task in "ab"}
        models = [
            model(**{t: (easy[t] + generator.random(100)) % 1 < rates[t][place] for t in "ab"})
            for place in range(4)
        ]
        pairs = [(each, models[3]) for each in models[:3]]
        found = simultaneous_differences(combined, pairs, seed=run, confidence=0.9, resamples=399)
        held += all(
            each.interval.low <= truth[place] - truth[3] <= each.interval.high
            for place, each in enumerate(found)
        )
    assert held >= 253


def test_as_many_items_as_it_says_would_just_settle_it() -> None:
    """The same items over and over: the interval ends where it begins to leave out 0."""
    generator = np.random.default_rng(66)
    first, second = generator.random(50) < 0.5, generator.random(50) < 0.5
    assert first.mean() - second.mean() == pytest.approx(0.1)
    found = only_difference(model(a=first), model(a=second))
    wanted = found.items_to_settle(50)
    assert wanted is not None
    fewer, more = (round(wanted * part / 50) for part in (0.8, 1.25))
    assert not only_difference(
        model(a=np.tile(first, fewer)), model(a=np.tile(second, fewer))
    ).settled
    assert only_difference(model(a=np.tile(first, more)), model(a=np.tile(second, more))).settled


def test_it_reads_back_from_json() -> None:
    found = only_difference(model(a=np.ones(9)), model(a=np.zeros(9)))
    assert read_difference(found.to_json()) == found
