"""The score summary of one model on one split: combined and for each task, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from evomerge.evaluate.candidate import TaskItems
from evomerge.evaluate.inference.intervals import (
    Interval,
    group_intervals,
    mean_intervals,
    score_interval,
)
from evomerge.evaluate.metric import Metric
from evomerge.evaluate.objective import Objective

Role = Literal["winner", "finalist", "base", "parent", "baseline", "stage", "model"]


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """One model on one split.

    score: the combined objective. tasks: task or group -> metric -> mean; a group comes before its
    tasks. All with 95% intervals.
    """

    label: str
    role: Role
    score: Interval
    tasks: Mapping[str, Mapping[str, Interval]]

    def lines(self) -> list[str]:
        """The scores for a terminal, one a line."""
        rows = [("objective", self.score)]
        rows += [
            (f"{task}/{metric}", interval)
            for task, metrics in self.tasks.items()
            for metric, interval in metrics.items()
        ]
        width = max(len(name) for name, _ in rows)
        return [
            f"{name:<{width}}  {interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
            for name, interval in rows
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values that `read_summary` reads back equal."""
        return asdict(self)


def summarise(
    label: str, role: Role, scores: Mapping[str, TaskItems], *, objective: Objective, seed: int
) -> ScoreSummary:
    """The summary of a model's scores, from its item results; seed: that of the bootstrap."""
    metrics = objective.metrics
    tasks: dict[str, dict[str, Interval]] = {name: {} for name in with_groups(scores, metrics)}
    for (group, metric), interval in group_intervals(metrics, scores, seed=seed).items():
        tasks[group][metric] = interval
    for (task, metric), interval in mean_intervals(scores, seed=seed).items():
        tasks[task][metric] = interval
    return ScoreSummary(
        label=label, role=role, score=score_interval(objective, scores, seed=seed), tasks=tasks
    )


def with_groups(tasks: Iterable[str], metrics: Sequence[Metric]) -> tuple[str, ...]:
    """Names of tasks, with each group before the first of its tasks."""
    names: dict[str, None] = {}
    for task in tasks:
        for metric in metrics:
            if any(leaf.task == task for leaf in metric.leaves):
                names.setdefault(metric.task)
        names.setdefault(task)
    return tuple(names)


def read_summary(entry: Mapping[str, Any]) -> ScoreSummary:
    """A summary that was stored as JSON."""
    return ScoreSummary(
        label=entry["label"],
        role=entry["role"],
        score=Interval(**entry["score"]),
        tasks={
            task: {metric: Interval(**interval) for metric, interval in metrics.items()}
            for task, metrics in entry["tasks"].items()
        },
    )
