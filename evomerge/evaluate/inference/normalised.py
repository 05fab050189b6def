"""Scores divided by those of a reference model: the expert of a task, or the base.

Yadav et al. 2024 (arXiv 2410.03617): a merged model's score on a held-in task is divided by that of
the expert trained for the task, on a held-out task by the base model's, and the shares are averaged
over tasks. Intervals are percentiles of a Bayesian bootstrap (`intervals.py`). Both scores of a
share use the same weights of the items, and so do all models that are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import TaskError
from evomerge.evaluate.candidate import TaskItems
from evomerge.evaluate.inference.intervals import RESAMPLES, Interval, resample_means
from evomerge.evaluate.metric import Metric


@dataclass(frozen=True)
class Share:
    """A model's score by a metric, to be divided by the reference's."""

    model: str
    metric: Metric


def check_normalisable(metric: Metric) -> None:
    """Raise TaskError for a metric that is better when lower."""
    if not metric.higher_is_better:
        raise TaskError(
            f"{metric} is better when lower, so a higher share of a reference's score would be "
            "worse; use a metric that is better when higher"
        )


class NormalisedScores:
    """Normalised scores of several models on the same items.

    undefined: metric -> why nothing can be divided by its reference's score.
    """

    def __init__(
        self,
        scores: Mapping[str, Mapping[str, TaskItems]],
        references: Mapping[Metric, str],
        *,
        seed: int,
        confidence: float = 0.95,
        resamples: int = RESAMPLES,
    ) -> None:
        """scores: model -> task -> item results. references: metric -> the model to divide by.

        A reference is too close to 0 to divide by if one of `resamples` draws of its items is
        likely to hold only items that score 0 or less. With right-or-wrong answers, that is so when
        about ten or fewer are right.
        Raises TaskError for a metric that is better when lower, or that not every item has.
        """
        self._confidence = confidence
        self._resamples = resamples
        self._values: dict[Share, float] = {}
        self._drawn: dict[Share, NDArray[np.float64]] = {}  # (resamples,) each
        self.undefined: dict[Metric, str] = {}
        ordinals = {task: n for n, task in enumerate(sorted({m.task for m in references}))}
        for metric, reference in references.items():
            check_normalisable(metric)
            models = [model for model, tasks in scores.items() if metric.task in tasks]
            ids = scores[reference][metric.task].ids
            assert all(scores[model][metric.task].ids == ids for model in models), "items differ"
            columns = [_column(scores[model][metric.task], metric) for model in models]
            means = dict(zip(models, map(_mean, columns), strict=True))
            drawn = resample_means(
                np.array(columns).T, seed=(seed, ordinals[metric.task]), resamples=resamples
            )
            divisor = drawn[:, models.index(reference)]
            wrong = np.mean(np.array(columns[models.index(reference)]) <= 0.0)
            if means[reference] <= 0.0 or wrong ** len(ids) * resamples >= 1.0:
                self.undefined[metric] = (
                    f"{reference} scores {means[reference]:.4f} on {metric}, too close to 0 to "
                    "divide by"
                )
                continue
            for column, model in enumerate(models):
                share = Share(model, metric)
                self._values[share] = means[model] / means[reference]
                self._drawn[share] = drawn[:, column] / divisor

    def mean(self, models: Sequence[Sequence[Share]]) -> Interval | None:
        """The mean over models of each model's mean share; every model counts the same.

        Shares of undefined metrics are left out; None if none is left. The items of all models are
        resampled together.
        """
        kept = [defined for shares in models if (defined := self._defined(shares))]
        if not kept:
            return None
        value = _mean([_mean([self._values[share] for share in shares]) for shares in kept])
        drawn = np.zeros(self._resamples)
        for shares in kept:
            for share in shares:
                drawn += self._drawn[share] / len(shares)
        drawn /= len(kept)
        tail = (1.0 - self._confidence) / 2.0
        low, high = np.quantile(drawn, [tail, 1.0 - tail])
        return Interval(
            value=value,
            low=min(value, float(low)),
            high=max(value, float(high)),
            confidence=self._confidence,
        )

    def _defined(self, shares: Sequence[Share]) -> list[Share]:
        return [share for share in shares if share.metric not in self.undefined]


def _column(items: TaskItems, metric: Metric) -> tuple[float, ...]:
    if metric.key not in items.metrics:
        raise TaskError(
            f"{metric}: not every item has a value of it, so there is no mean; use a metric that "
            "every item has"
        )
    return items.metrics[metric.key]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
