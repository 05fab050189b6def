"""Normalised scores are those of Yadav et al. 2024, with intervals that hold what they say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import ArrayLike

from evomerge.errors import TaskError
from evomerge.evaluate.candidate import TaskItems
from evomerge.evaluate.inference.normalised import NormalisedScores, Share
from evomerge.evaluate.metric import Metric


def metric(task: str, *, key: str = "acc", higher: bool = True) -> Metric:
    return Metric(task=task, key=key, higher_is_better=higher)


A, B = metric("a"), metric("b")


def items(values: ArrayLike, *, key: str = "acc") -> TaskItems:
    numbers = np.asarray(values, dtype=float).tolist()
    return TaskItems(ids=tuple(range(len(numbers))), metrics={key: tuple(numbers)})


def rates(right: int, of: int) -> list[float]:
    return [1.0] * right + [0.0] * (of - right)


def shares(model: str, *metrics: Metric) -> list[Share]:
    return [Share(model, one) for one in metrics]


def normalise(
    scores: Mapping[str, Mapping[str, TaskItems]], *, resamples: int = 1000, **references: str
) -> NormalisedScores:
    return NormalisedScores(
        scores,
        {metric(task): model for task, model in references.items()},
        seed=0,
        resamples=resamples,
    )


def test_a_score_is_the_mean_of_its_tasks_shares_of_their_own_references() -> None:
    scores = normalise(
        {
            "merged": {"a": items(rates(45, 100)), "b": items(rates(120, 200))},
            "expert of a": {"a": items(rates(90, 100))},
            "expert of b": {"b": items(rates(160, 200))},
        },
        a="expert of a",
        b="expert of b",
    )
    found = scores.mean([shares("merged", A, B)])
    assert found is not None
    assert found.value == pytest.approx((45 / 90 + 120 / 160) / 2)
    assert found.low < found.value < found.high


def test_a_reference_is_one_of_itself_whatever_items_are_drawn() -> None:
    scores = normalise({"base": {"a": items(rates(30, 60))}}, a="base")
    found = scores.mean([shares("base", A)])
    assert found is not None
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_width_is_that_of_a_ratio_of_paired_means() -> None:
    """By the delta method: var(x/y) = mean((x - r y)^2) / (n mean(y)^2)."""
    generator = np.random.default_rng(1)
    easy = generator.random(400)
    x, y = (easy < 0.6).astype(float), (easy + 0.1 * generator.random(400) < 0.8).astype(float)
    scores = normalise(
        {"merged": {"a": items(x)}, "expert": {"a": items(y)}}, resamples=10_000, a="expert"
    )
    found = scores.mean([shares("merged", A)])
    assert found is not None
    ratio = x.mean() / y.mean()
    error = math.sqrt(((x - ratio * y) ** 2).mean() / 400) / y.mean()
    # A quantile of 10,000 resamples is known to about 2%; 8% is four times that.
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """400 simulated pairs of models on two tasks, intervals at 90%.

    With true coverage 0.9 the count is binomial(400, 0.9); below 0.845 or above 0.95 falls once in
    3,000 seeds. The seed is fixed, so the test fails always or never.
    """
    generator = np.random.default_rng(2)
    truth = (0.5 / 0.8 + 0.6 / 0.7) / 2
    held = 0
    for run in range(400):
        drawn = {
            model: {task: items(easy[task] < rate) for task, rate in (("a", first), ("b", second))}
            for easy in [{task: generator.random(150) for task in "ab"}]
            for model, first, second in (("merged", 0.5, 0.6), ("expert", 0.8, 0.7))
        }
        scores = NormalisedScores(
            drawn, {A: "expert", B: "expert"}, seed=run, confidence=0.9, resamples=400
        )
        found = scores.mean([shares("merged", A, B)])
        assert found is not None
        held += found.low <= truth <= found.high
    assert 0.845 <= held / 400 <= 0.95


def test_models_are_averaged_on_the_same_resampled_items() -> None:
    generator = np.random.default_rng(3)
    easy = generator.random(200)
    first, opposite = items(easy < 0.5), items(easy >= 0.5)
    scores = normalise(
        {"one": {"a": first}, "other": {"a": opposite}, "base": {"a": items(rates(200, 200))}},
        a="base",
    )
    alone = scores.mean([shares("one", A)])
    both = scores.mean([shares("one", A), shares("other", A)])
    assert alone is not None and both is not None
    assert alone.high - alone.low > 0.1
    # One is right where the other is not, so every draw gives them one half together, but for the
    # two items that nobody saw.
    assert both.high - both.low < 0.02


def test_every_model_counts_alike_however_many_tasks_it_has() -> None:
    scores = normalise(
        {
            "one": {"a": items(rates(50, 100))},
            "other": {"a": items(rates(100, 100)), "b": items(rates(80, 100))},
            "base": {"a": items(rates(100, 100)), "b": items(rates(100, 100))},
        },
        a="base",
        b="base",
    )
    found = scores.mean([shares("one", A), shares("other", A, B)])
    assert found is not None
    assert found.value == pytest.approx((0.5 + 0.9) / 2)


def test_an_interval_does_not_depend_on_who_else_is_there() -> None:
    pair = {"merged": {"a": items(rates(30, 80))}, "base": {"a": items(rates(60, 80))}}
    more = {"another": {"a": items(rates(11, 80))}, **pair}
    few, many = (normalise(scores, a="base").mean([shares("merged", A)]) for scores in (pair, more))
    assert few == many


@pytest.mark.parametrize("right", [0, 1, 4])
def test_a_reference_that_is_hardly_ever_right_is_divided_by_no_one(right: int) -> None:
    """4 of 100: a resample misses all of them once in 60, and 1,000 are drawn."""
    scores = normalise(
        {
            "merged": {"a": items(rates(50, 100)), "b": items(rates(50, 100))},
            "base": {"a": items(rates(right, 100)), "b": items(rates(50, 100))},
        },
        a="base",
        b="base",
    )
    assert list(scores.undefined) == [A]
    assert f"base scores {right / 100:.4f} on a/acc" in scores.undefined[A]
    assert scores.mean([shares("merged", A)]) is None
    left = scores.mean([shares("merged", A, B)])
    assert left is not None and left.value == 1.0


def test_nothing_normalised_is_infinite() -> None:
    for right in range(5, 30):
        scores = normalise(
            {"m": {"a": items(rates(100, 100))}, "base": {"a": items(rates(right, 100))}}, a="base"
        )
        found = scores.mean([shares("m", A)])
        assert found is None or np.isfinite([found.value, found.low, found.high]).all()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([metric("a", higher=False)], "better when lower"),
        ([metric("a", key="f1")], "not every item has a value"),
    ],
)
def test_a_metric_that_cannot_be_normalised_is_refused(asked: Sequence[Metric], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        NormalisedScores(
            {"base": {"a": items(rates(50, 100))}}, dict.fromkeys(asked, "base"), seed=0
        )
