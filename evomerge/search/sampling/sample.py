"""The items that a generation is scored on, and estimates of whole tasks from results on them.

Items are in the order in which they are scored, so the first items of a sample are a sample too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluate import ItemIds, TaskItems


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskSample:
    """Items of one task.

    The task's mean by a metric is estimated, without bias, by the metric's offset and the mean of
    scale x (outcome - guess) over the items scored so far (difference estimator, Särndal, Swensson
    & Wretman 1992, section 6.3). Scales 1, guesses and offset 0 are the plain mean.

    items: (m,) int64, in the order of scoring. scales: (m,) float64. guesses: metric -> (m,)
    float64, what each item's outcome was expected to be. offsets: metric -> mean of the guesses
    over the whole task. A metric in neither has guesses and offset 0. estimate: another way to
    estimate the mean, from outcomes (m,) on all the items in ascending order.
    """

    items: NDArray[np.int64]
    scales: NDArray[np.float64]
    guesses: Mapping[str, NDArray[np.float64]]
    offsets: Mapping[str, float]
    estimate: Callable[[NDArray[np.float64]], float] | None = None

    def terms(self, scored: TaskItems, metric: str) -> NDArray[np.float64]:
        """Values (s,) in the order of scoring whose mean, plus the offset, is the estimate."""
        outcome = dict(zip(scored.ids, scored.metrics[metric], strict=True))
        seen = self.items[: len(outcome)].tolist()
        assert set(seen) == set(outcome), "these items are not the first ones of the sample"
        values = np.array([outcome[item] for item in seen], dtype=np.float64)
        guesses = self.guesses.get(metric)
        if guesses is not None:
            values -= guesses[: len(seen)]
        return values * self.scales[: len(seen)]

    def mean(self, scored: TaskItems, metric: str) -> float:
        """The estimate of the task's score by the metric."""
        if self.estimate is not None:
            assert scored.ids == tuple(sorted(self.items.tolist())), "not all items are scored"
            return self.estimate(np.array(scored.metrics[metric], dtype=np.float64))
        return self.offsets.get(metric, 0.0) + float(self.terms(scored, metric).mean())


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Items of every task of a search, in the order of the job."""

    tasks: Mapping[str, TaskSample]

    @property
    def size(self) -> int:
        """Items in all."""
        return sum(len(task.items) for task in self.tasks.values())

    def block(self, number: int, *, of: int) -> ItemIds:
        """Items of block `number`, from 0, of `of` equal blocks; tasks without any are left out."""
        items = {}
        for name, task in self.tasks.items():
            # Rounded down, so that the first blocks never have more than their share.
            start, stop = (len(task.items) * edge // of for edge in (number, number + 1))
            items[name] = tuple(sorted(task.items[start:stop].tolist()))
        return {name: ids for name, ids in items.items() if ids}

    def means(self, scored: Mapping[str, TaskItems]) -> dict[str, dict[str, float]]:
        """task -> metric -> estimate, from item results on the first items of the sample."""
        return {
            name: {metric: self.tasks[name].mean(items, metric) for metric in items.metrics}
            for name, items in scored.items()
        }


def plain(items: NDArray[np.int64]) -> TaskSample:
    """A sample whose estimate is the mean of its outcomes."""
    return TaskSample(items=items, scales=np.ones(len(items)), guesses={}, offsets={})
