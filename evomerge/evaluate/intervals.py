"""How sure a score is: bootstrap intervals of one model's scores.

Resampling is stratified by task, and paired: several models are scored on the same resampled items
(Efron & Tibshirani 1993, percentile intervals). Everything is drawn from a seed. It does not know
where scores come from; how sure a difference is, is told elsewhere (`simultaneous.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import TaskItems
from evomerge.evaluate.objective import Objective, Scores, means_of

RESAMPLES = 10_000
_CHUNK_VALUES = 4_000_000
"""Numbers held at once while resampling: 32 MB."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A score, and a percentile interval around it.

    Where every item says the same the interval is one point: the items show no spread, which is
    no proof that unseen ones have none.
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
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, ordinal))))
        means = _resample_means(values, generator, resamples)  # (resamples, metrics)
        for column, metric in enumerate(items.metrics):
            intervals[task, metric] = _interval(items.mean(metric), means[:, column], confidence)
    return intervals


def resample_terms(
    objective: Objective, models: Sequence[Scores], *, seed: int, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Score by each term (models, resamples, terms), every model on the same resampled items."""
    tasks = sorted({term.metric.task for term in objective.terms})
    means = np.empty((len(models), resamples, len(objective.terms)))
    for ordinal, task in enumerate(tasks):
        columns = [i for i, term in enumerate(objective.terms) if term.metric.task == task]
        keys = [objective.terms[column].metric.key for column in columns]
        ids = models[0][task].ids
        assert all(model[task].ids == ids for model in models), "models differ in their items"
        values = np.concatenate([_columns(model[task], keys) for model in models], axis=1)
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, ordinal))))
        drawn = _resample_means(values, generator, resamples)
        means[:, :, columns] = np.moveaxis(drawn.reshape(resamples, len(models), -1), 1, 0)
    return means


def _columns(items: TaskItems, keys: Sequence[str]) -> NDArray[np.float64]:
    """(items, metrics) of one model."""
    metrics: Mapping[str, tuple[float, ...]] = items.metrics
    return np.array([metrics[key] for key in keys], dtype=np.float64).T


def _resample_means(
    values: NDArray[np.float64], generator: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """Means (resamples, columns) of rows of `values` (items, columns) drawn with replacement."""
    count, columns = values.shape
    means = np.empty((resamples, columns))
    chunk = max(1, _CHUNK_VALUES // (count * columns))
    for start in range(0, resamples, chunk):
        stop = min(resamples, start + chunk)
        rows = generator.integers(0, count, size=(stop - start, count))
        means[start:stop] = values[rows].mean(axis=1)
    return means


def _interval(value: float, drawn: NDArray[np.float64], confidence: float) -> Interval:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    return Interval(value=value, low=float(low), high=float(high), confidence=confidence)
