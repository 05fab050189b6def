"""A metric of a task, as scores name it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A score that is a mean over items. key: its name in TaskItems.metrics."""

    task: str
    key: str
    higher_is_better: bool

    def __str__(self) -> str:
        return f"{self.task}/{self.key}"
