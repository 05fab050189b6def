"""Intervals of one model's scores, by a Bayesian bootstrap.

Every item gets a random weight (Rubin 1981). Two invented items get one too: one at each end of the
metric's range. If items are right or wrong, the weighted mean is exactly the posterior of the share
that is right, under a uniform prior. So after sixty right answers out of sixty, the interval still
allows for some wrong ones; a plain bootstrap allows for none. Weights are drawn task by task and
are the same for all models of a task. Everything is drawn from a seed. Intervals of differences are
in `simultaneous.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluate.candidate import TaskItems
from evomerge.evaluate.metric import Metric, fold, leaves_of
from evomerge.evaluate.objective import Objective, Scores, means_of

RESAMPLES = 10_000
_CHUNK_VALUES = 4_000_000
"""Numbers held at once while resampling: 32 MB."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A score, and a percentile interval that contains it.

    The interval is one point only if every item has the same value of a metric without known ends.
    """

    value: float
    low: float
    high: float
    confidence: float = 0.95


def score_interval(
    objective: Objective,
    scores: Scores,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Interval of one model's combined score."""
    drawn = resample_terms(objective, [scores], seed=seed, resamples=resamples)[0]
    return _interval(objective.score(means_of(scores)), objective.combine(drawn), confidence)


def mean_intervals(
    scores: Scores, *, seed: int, confidence: float = 0.95, resamples: int = RESAMPLES
) -> dict[tuple[str, str], Interval]:
    """(task, metric) -> interval of the task's score by that metric."""
    intervals = {}
    for ordinal, (task, items) in enumerate(sorted(scores.items())):
        if not items.metrics or not items.ids:
            continue
        values = np.array(list(items.metrics.values()), dtype=np.float64).T  # (items, metrics)
        means = resample_means(values, seed=(seed, ordinal), resamples=resamples)
        for column, metric in enumerate(items.metrics):
            intervals[task, metric] = _interval(items.mean(metric), means[:, column], confidence)
    return intervals


def resample_terms(
    objective: Objective, models: Sequence[Scores], *, seed: int, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Score by each term (models, resamples, terms), with the same item weights for every model."""
    metrics = [term.metric for term in objective.terms]
    return resample_metrics(metrics, models, seed=seed, resamples=resamples)


def resample_metrics(
    metrics: Sequence[Metric], models: Sequence[Scores], *, seed: int, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Means (models, resamples, metrics), with the same item weights for every model."""
    leaves = leaves_of(metrics)
    means = np.empty((len(models), resamples, len(leaves)))
    for ordinal, task in enumerate(sorted({leaf.task for leaf in leaves})):
        columns = [i for i, leaf in enumerate(leaves) if leaf.task == task]
        keys = [leaves[column].key for column in columns]
        ids = models[0][task].ids
        assert all(model[task].ids == ids for model in models), "models differ in their items"
        values = np.concatenate([_columns(model[task], keys) for model in models], axis=1)
        drawn = resample_means(values, seed=(seed, ordinal), resamples=resamples)
        means[:, :, columns] = np.moveaxis(drawn.reshape(resamples, len(models), -1), 1, 0)
    return fold(means, leaves, metrics)


def group_intervals(
    metrics: Sequence[Metric],
    scores: Scores,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> dict[tuple[str, str], Interval]:
    """(group, metric) -> interval of the group's score, for the groups among the metrics."""
    groups = [metric for metric in metrics if metric.parts]
    if not groups:
        return {}
    drawn = resample_metrics(groups, [scores], seed=seed, resamples=resamples)[0]
    means = means_of(scores)
    return {
        (group.task, group.key): _interval(group.mean(means), drawn[:, column], confidence)
        for column, group in enumerate(groups)
    }


def _columns(items: TaskItems, keys: Sequence[str]) -> NDArray[np.float64]:
    """Values (items, metrics) of one model."""
    metrics: Mapping[str, tuple[float, ...]] = items.metrics
    return np.array([metrics[key] for key in keys], dtype=np.float64).T


def resample_means(
    values: NDArray[np.float64], *, seed: tuple[int, int], resamples: int
) -> NDArray[np.float64]:
    """Means (resamples, columns) of `values` (items, columns) by random weights of the rows.

    The weights depend on the seed and the numbers of rows and resamples alone.
    """
    with_ends = np.concatenate([values, value_ends(values)])
    count = len(with_ends)
    chunk = max(1, _CHUNK_VALUES // count)
    if resamples <= chunk:
        return _weighted_means(_kept_weights(seed, resamples, count), with_ends)
    means = np.empty((resamples, values.shape[1]))
    generator = _generator(seed)
    for start in range(0, resamples, chunk):
        stop = min(resamples, start + chunk)
        weights = generator.standard_exponential((stop - start, count))
        means[start:stop] = _weighted_means(weights, with_ends)
    return means


def _weighted_means(
    weights: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    means: NDArray[np.float64] = weights @ values / weights.sum(axis=1, keepdims=True)
    return means


@lru_cache(maxsize=4)  # 32 MB each at most
def _kept_weights(seed: tuple[int, int], resamples: int, count: int) -> NDArray[np.float64]:
    """Weights (resamples, count). They are the same for every model, and cost most of the time."""
    weights = _generator(seed).standard_exponential((resamples, count))
    weights.setflags(write=False)
    return weights


def _generator(seed: tuple[int, int]) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))


def value_ends(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The least and the largest value that each column (items, columns) can have, (2, columns).

    0 and 1 if all values of the column are between them, as shares are; else the ends of what was
    seen.
    """
    least, most = values.min(axis=0), values.max(axis=0)
    share = (least >= 0.0) & (most <= 1.0)
    return np.array([np.where(share, 0.0, least), np.where(share, 1.0, most)])


def _interval(value: float, drawn: NDArray[np.float64], confidence: float) -> Interval:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    # No draw reaches the end of the range, but a score can.
    return Interval(
        value=value,
        low=min(value, float(low)),
        high=max(value, float(high)),
        confidence=confidence,
    )
