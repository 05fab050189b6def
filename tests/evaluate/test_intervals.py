"""Intervals: they hold the truth as often as they say, and models share resampled items."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from evomerge.evaluate.candidate import TaskItems
from evomerge.evaluate.inference.intervals import (
    mean_intervals,
    resample_means,
    resample_terms,
    score_interval,
)
from evomerge.evaluate.metric import Metric
from evomerge.evaluate.objective import Objective, Term

TASKS = ("a", "b")


def objective(aggregate: str = "mean") -> Objective:
    return Objective(
        terms=[
            Term(metric=Metric(task=task, key="acc", higher_is_better=True), weight=1.0)
            for task in TASKS
        ],
        aggregate=aggregate,  # type: ignore[arg-type]
    )


def scores(**values: np.ndarray) -> dict[str, TaskItems]:
    return {
        task: TaskItems(ids=tuple(range(len(column))), metrics={"acc": tuple(map(float, column))})
        for task, column in values.items()
    }


def test_the_middle_is_the_score_itself_and_seeds_repeat() -> None:
    generator = np.random.default_rng(0)
    model = scores(a=generator.random(40) < 0.7, b=generator.random(60) < 0.4)
    interval = score_interval(objective(), model, seed=3)
    expected = (np.mean(model["a"].metrics["acc"]) + np.mean(model["b"].metrics["acc"])) / 2
    assert interval.value == pytest.approx(expected)
    assert interval.low < interval.value < interval.high
    assert score_interval(objective(), model, seed=3) == interval
    assert score_interval(objective(), model, seed=4) != interval
    wider = score_interval(objective(), model, seed=3, confidence=0.99)
    assert wider.low < interval.low
    assert wider.high > interval.high


def test_width_is_that_of_the_stratified_standard_error() -> None:
    generator = np.random.default_rng(1)
    a, b = generator.random(200), 3 * generator.random(300)
    interval = score_interval(objective(), scores(a=a, b=b), seed=0)
    error = 0.5 * math.sqrt(a.var() / 200 + b.var() / 300)
    # A quantile of 10,000 resamples is known to about 2%; 8% is four times that.
    assert (interval.high - interval.low) == pytest.approx(2 * 1.96 * error, rel=0.08)


@pytest.mark.parametrize("aggregate", ["mean", "geometric"])
def test_an_interval_holds_the_truth_as_often_as_it_says(aggregate: str) -> None:
    """400 simulated models, intervals at 90%.

    With true coverage 0.9 the count is binomial(400, 0.9); below 0.845 or above 0.95 falls once in
    3,000 seeds. The seed is fixed, so the test fails always or never.
    """
    generator = np.random.default_rng(2)
    rates = {"a": 0.7, "b": 0.45}
    truth = float(objective(aggregate).combine(np.array([0.7, 0.45])))
    held = 0
    for run in range(400):
        model = scores(**{task: generator.random(120) < rates[task] for task in TASKS})
        interval = score_interval(
            objective(aggregate), model, seed=run, confidence=0.9, resamples=400
        )
        held += interval.low <= truth <= interval.high
    assert 0.845 <= held / 400 <= 0.95


def test_models_are_scored_on_the_same_resampled_items() -> None:
    generator = np.random.default_rng(3)
    easy = generator.random(150)
    better, worse = (scores(a=easy < rate, b=easy < rate) for rate in (0.6, 0.5))
    first, second = objective().combine(resample_terms(objective(), [better, worse], seed=0))
    assert (first >= second).all(), "the better is right wherever the other is"
    assert (first - second).std() < 0.7 * first.std()


def test_every_task_and_metric_has_an_interval_of_its_own() -> None:
    items = TaskItems(
        ids=tuple(range(50)),
        metrics={"acc": (1.0, 0.0) * 25, "words": (4.0, 2.0) * 25},
    )
    intervals = mean_intervals({"a": items}, seed=0)
    assert intervals["a", "acc"].value == 0.5
    assert intervals["a", "words"].value == 3.0
    # Both metrics are resampled together, and one is a linear function of the other.
    assert intervals["a", "words"].low == pytest.approx(2 + 2 * intervals["a", "acc"].low)


@pytest.mark.parametrize("right", [True, False])
def test_few_items_that_all_agree_leave_room_for_others(right: bool) -> None:
    """Of 63 items that are all right, 4.6% of all may be wrong: (1 - 0.046)^63 is 5%."""
    items = np.full(63, float(right))
    interval = mean_intervals(scores(a=items), seed=0)["a", "acc"]
    room = 1.0 - interval.low if right else interval.high
    assert interval.value == (interval.high if right else interval.low) == float(right)
    assert 0.046 < room < 0.07
    both = score_interval(objective(), scores(a=items, b=items), seed=0)
    assert 0.02 < abs(both.high - both.low) < room


def test_right_and_wrong_items_give_the_posterior_of_a_uniform_prior() -> None:
    items = np.arange(40) < 37
    interval = mean_intervals(scores(a=items), seed=0, resamples=40_000)["a", "acc"]
    # A quantile of 40,000 draws from Beta(38, 4) is known to 0.001.
    assert interval.low == pytest.approx(stats.beta(38, 4).ppf(0.025), abs=0.003)
    assert interval.high == pytest.approx(stats.beta(38, 4).ppf(0.975), abs=0.003)


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.98])
def test_few_items_hold_the_truth_as_often_as_said(rate: float) -> None:
    """Coverage of 95% intervals over all that 63 items can show, by the binomial."""
    held = 0.0
    for right in range(64):
        items = np.arange(63) < right
        found = mean_intervals(scores(a=items), seed=0, resamples=2_000)["a", "acc"]
        held += stats.binom(63, rate).pmf(right) * (found.low <= rate <= found.high)
    assert held > 0.93


def test_items_that_agree_by_a_metric_without_ends_give_a_point() -> None:
    interval = score_interval(objective(), scores(a=np.full(9, 3.0), b=np.full(9, 3.0)), seed=0)
    assert (interval.low, interval.high) == (pytest.approx(3.0), pytest.approx(3.0))


def test_two_metrics_of_one_task_are_resampled_together() -> None:
    up = tuple(float(n % 2) for n in range(400))
    down = tuple(1.0 - value for value in up)
    items = TaskItems(ids=tuple(range(400)), metrics={"up": up, "down": down})
    both = Objective(
        terms=[
            Term(metric=Metric(task="a", key=key, higher_is_better=True), weight=1.0)
            for key in ("up", "down")
        ],
        aggregate="mean",
    )
    interval = score_interval(both, {"a": items}, seed=0)
    # Drawn apart the two would make a width of 0.07; the items nobody saw make the rest.
    assert 0.49 < interval.low < 0.5 < interval.high < 0.51


@pytest.mark.parametrize("count", [30, 500], ids=["kept weights", "too many to keep"])
def test_means_do_not_depend_on_what_was_resampled_before(count: int) -> None:
    """Weights are kept for the next model; drawn in parts, they are those of one draw."""
    values = np.random.default_rng(0).random((count, 2))
    rows = np.concatenate([values, [[0.0, 0.0], [1.0, 1.0]]])
    bits = np.random.PCG64(np.random.SeedSequence((7, 1)))
    weights = np.random.Generator(bits).standard_exponential((10_000, count + 2))
    expected = weights @ rows / weights.sum(axis=1, keepdims=True)
    for seed in ((7, 1), (7, 2), (7, 1)):
        found = resample_means(values, seed=seed, resamples=10_000)
        assert (seed == (7, 1)) == np.allclose(found, expected, rtol=1e-12, atol=0.0)
