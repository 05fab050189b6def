"""Differences between the shares of items that have a property, paired item by item."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.evaluate.candidate import TaskItems
from evomerge.evaluate.inference.simultaneous import Difference, simultaneous_differences
from evomerge.evaluate.metric import Metric
from evomerge.evaluate.objective import Objective, Term

_TASK, _SHARE = "items", "share"


def share_differences(
    pairs: Sequence[tuple[Sequence[bool], Sequence[bool]]], *, seed: int, confidence: float = 0.95
) -> list[Difference]:
    """First's share minus second's for every pair; a flag for each item, in the same order.

    All pairs have the same items. The intervals hold together (see `simultaneous_differences`).
    """
    metric = Metric(task=_TASK, key=_SHARE, higher_is_better=True)
    objective = Objective(terms=[Term(metric=metric, weight=1.0)], aggregate="mean")

    def scores(flags: Sequence[bool]) -> dict[str, TaskItems]:
        values = tuple(map(float, flags))
        return {_TASK: TaskItems(ids=tuple(range(len(values))), metrics={_SHARE: values})}

    return simultaneous_differences(
        objective,
        [(scores(first), scores(second)) for first, second in pairs],
        seed=seed,
        confidence=confidence,
    )
