"""Metrics of tasks, and of groups of tasks: their scores as means of items."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import TaskError
from evomerge.evaluate.candidate import Split
from evomerge.job import ConstraintSpec, ObjectiveSpec

Means = Mapping[str, Mapping[str, float]]
"""task -> metric -> mean over the items; empty for a candidate that failed."""

CountItems = Callable[[str, Split], int]
"""(task, split) -> its number of items, which is the task's weight in some groups."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A task's metric in a group. weight: relative to the others, a number of items or of tasks."""

    metric: Metric
    weight: int


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A score that is a mean over items, or for a group of tasks a weighted mean of such scores.

    task: a task, or a group. key: its name in TaskItems.metrics. parts: of a group.
    """

    task: str
    key: str
    higher_is_better: bool
    parts: tuple[Part, ...] = ()

    def __str__(self) -> str:
        return f"{self.task}/{self.key}"

    @property
    def leaves(self) -> tuple[Metric, ...]:
        """The metrics of single tasks that it is made of."""
        return tuple(part.metric for part in self.parts) or (self,)

    def mean(self, means: Means) -> float:
        """The score, from the means of its tasks. Raises TaskError where one is missing."""
        if not self.parts:
            return _mean(means, self)
        total = sum(part.weight for part in self.parts)
        return math.fsum(part.weight * _mean(means, part.metric) for part in self.parts) / total


FindMetric = Callable[[str, str], Metric]
"""(task, name as the user wrote it) -> the metric; raises TaskError. TaskSuite.metric is one."""


def leaves_of(metrics: Iterable[Metric]) -> tuple[Metric, ...]:
    """The metrics of single tasks in these metrics, each once, in order."""
    return tuple(dict.fromkeys(leaf for metric in metrics for leaf in metric.leaves))


def fold(
    values: NDArray[np.float64], leaves: Sequence[Metric], metrics: Sequence[Metric]
) -> NDArray[np.float64]:
    """Means of single tasks (..., leaves) to those of the metrics made of them (..., metrics)."""
    if tuple(leaves) == tuple(metrics):
        return values
    columns = {leaf: values[..., place] for place, leaf in enumerate(leaves)}
    folded = []
    for metric in metrics:
        if metric.parts:
            total = sum(part.weight for part in metric.parts)
            weighted = [columns[part.metric] * (part.weight / total) for part in metric.parts]
            folded.append(np.sum(weighted, axis=0))
        else:
            folded.append(columns[metric])
    return np.stack(folded, axis=-1)


def group_metric(
    scored: ObjectiveSpec | ConstraintSpec, find: FindMetric, size: Callable[[str], int]
) -> Metric:
    """The metric of a group: every task as often as the group lists it. Raises TaskError."""
    times = Counter(scored.members)
    found: dict[str, Metric] = {}
    for task in times:
        try:
            found[task] = find(task, scored.metric)
        except TaskError as error:
            raise TaskError(
                f"task {scored.task}: its {error}; name the tasks that have {scored.metric}"
            ) from error
    directions = {metric.higher_is_better for metric in found.values()}
    if len(directions) > 1:
        raise TaskError(
            f"{scored.task}/{scored.metric} is better when higher in some of its tasks and when "
            "lower in others; name the tasks that fit together"
        )
    keys = {metric.key for metric in found.values()}
    return Metric(
        task=scored.task,
        key=keys.pop() if len(keys) == 1 else scored.metric,
        higher_is_better=directions.pop(),
        parts=tuple(
            Part(metric=metric, weight=times[task] * (size(task) if scored.weight_by_size else 1))
            for task, metric in found.items()
        ),
    )


def _mean(means: Means, metric: Metric) -> float:
    value = means.get(metric.task, {}).get(metric.key)
    if value is None:
        raise TaskError(
            f"{metric}: not every item has a value of it, so there is no mean; use a metric that "
            "every item has"
        )
    return value
