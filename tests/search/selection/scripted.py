"""A pool whose models are as good as a script says, for searches whose end must be known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

from evomerge.evaluate.candidate import (
    Candidate,
    Cost,
    Evaluation,
    Failed,
    Observer,
    Scored,
    TaskItems,
    ignore,
)
from evomerge.search.selection.finalists import TEST, VALIDATION
from evomerge.workers.pool import Pool

METRICS = {"sums_choice": "acc", "sums_said": "exact_match"}

Quality = Callable[[str, str, str], float | None]
"""(label, split, task) -> the share of items that a model has right; None for one that fails."""


class ScriptedPool(Pool):
    """Items have a difficulty, the same for all models: a model has right what is below its share.

    So of two models the better is right wherever the other is, and equal shares are equal answers.
    """

    def __init__(self, quality: Quality) -> None:
        self._quality = quality
        self.scored: list[tuple[str, str]] = []  # (label, split)

    def evaluate(
        self, candidates: Sequence[Candidate], observe: Observer = ignore
    ) -> Iterator[tuple[Candidate, Evaluation]]:
        for candidate in candidates:
            split = {VALIDATION: "validation", TEST: "test"}.get(candidate.key.generation, "search")
            self.scored.append((candidate.label, split))
            yield candidate, self._outcome(candidate, split)

    def _outcome(self, candidate: Candidate, split: str) -> Evaluation:
        tasks = {}
        for task, ids in candidate.items.items():
            share = self._quality(candidate.label, split, task)
            if share is None:
                return Failed(reason="the logits are not finite")
            right = tuple(float(place < share) for place in _difficulties(task, ids))
            tasks[task] = TaskItems(ids=ids, metrics={METRICS[task]: right})
        return Scored(tasks=tasks, cost=Cost(items=len(candidate.items)))

    def close(self) -> None:
        pass


def _difficulties(task: str, ids: Sequence[int]) -> list[float]:
    """Evenly in (0, 1), in an order that hashes make."""
    order = sorted(ids, key=lambda item: hashlib.sha256(f"{task} {item}".encode()).digest())
    return [(order.index(item) + 0.5) / len(order) for item in ids]
