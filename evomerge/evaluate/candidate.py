"""A candidate on its way to a worker, and its evaluation on the way back.

Plain data, cheap to send to another process.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from evomerge.errors import RunError
from evomerge.evaluate.answers import Answers
from evomerge.recipe import Recipe

Kind = Literal["baseline", "genome", "elite", "finalist", "cell"]
"""Where a candidate comes from: a usual default, the optimiser, the best of an earlier generation,
the final selection, or a grid.
"""

Split = Literal["search", "validation", "test"]

Phase = Literal["baselines", "search", "validation", "test"]
"""Phases of a search: the baselines, the generations, and the two steps of each final selection."""

ItemIds = Mapping[str, tuple[int, ...]]
"""task -> positions of the items in the task's own order, sorted and unique."""


MOST_FINALISTS = 1000
"""Places reserved for one selection; an extended search selects again, in new places."""


def count_items(items: ItemIds) -> int:
    """The number of items, over all tasks."""
    return sum(len(ids) for ids in items.values())


@dataclass(frozen=True, order=True)
class CandidateKey:
    """Identity of a candidate in a search; it does not depend on the order of arrival.

    Baselines are generation 0, the optimiser's generations count from 1, finalists are -1
    (validation) and -2 (test).
    """

    generation: int
    place: int

    @property
    def phase(self) -> Phase:
        """The phase in which the candidate is scored."""
        if self.generation > 0:
            return "search"
        if self.generation == 0:
            return "baselines"
        return "validation" if self.generation == -1 else "test"

    @property
    def split(self) -> Split:
        """The split whose items the candidate is scored on."""
        phase = self.phase
        return phase if phase == "validation" or phase == "test" else "search"

    @property
    def selected_after(self) -> int:
        """For a finalist: the number of generations after which it was selected."""
        return self.place // MOST_FINALISTS

    def __str__(self) -> str:
        return f"g{self.generation:04d}-i{self.place:03d}"

    @classmethod
    def parse(cls, text: str) -> CandidateKey:
        """The key that prints as `text`. Raises RunError."""
        match = re.fullmatch(r"g(-?\d+)-i(\d+)", text)
        if match is None:
            raise RunError(f"{text}: not a candidate; candidates are named like g0012-i003")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A recipe to score, and the items to score it on.

    keep_answers: whether its answers come back too, to be looked at; scores do not depend on it.
    """

    key: CandidateKey
    kind: Kind
    label: str
    recipe: Recipe
    items: ItemIds
    genome: tuple[float, ...] | None = None  # (n,) float64 in [0, 1]; None outside the space
    stage: int = 0  # number of the job's search that proposed it
    keep_answers: bool = False


@dataclass(frozen=True, kw_only=True)
class TaskItems:
    """The scores of one task, item by item.

    ids: positions of the items in the task, sorted.
    metrics: metric -> one float64 an item, in the order of `ids`; the score is their mean.
    """

    ids: tuple[int, ...]
    metrics: Mapping[str, tuple[float, ...]]

    def mean(self, metric: str) -> float:
        """The score of the task by this metric."""
        values = self.metrics[metric]
        return math.fsum(values) / len(values)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds of wall time a candidate took, by part; `forward_s` is a part of `evaluate_s`.

    hops: passes of a batch through a layer that the log-likelihoods of a route need. shared_hops:
    those that were skipped, because the states of another candidate were there.
    """

    merge_s: float = 0.0
    evaluate_s: float = 0.0
    forward_s: float = 0.0
    items: int = 0
    hops: int = 0
    shared_hops: int = 0


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A candidate that was built and scored. answers: to be looked at; empty if not asked for."""

    tasks: Mapping[str, TaskItems]
    cost: Cost = field(default_factory=Cost)
    answers: Answers = field(default_factory=dict, compare=False)


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A candidate that could not be scored, and why, in a sentence for the user."""

    reason: str
    cost: Cost = field(default_factory=Cost)


Evaluation = Scored | Failed

Step = Literal["asked", "merged", "scored", "recorded", "told"]
"""What has just happened. "asked" and "told" concern a generation: the key's place is 0."""

Observer = Callable[[Step, CandidateKey], None]
"""Called after each step of a search; an exception that it raises ends the search."""


def ignore(step: Step, key: CandidateKey) -> None:
    """The observer that does nothing."""


Plan = Callable[[Sequence[CandidateKey], int], None]
"""Called before models are scored, with their keys and the number of items of each."""


def unplanned(keys: Sequence[CandidateKey], items: int) -> None:
    """The plan callback that does nothing."""


Say = Callable[[str], None]
"""Called with a line for the user, for example that a worker is lost; a search goes on after it."""


def hush(line: str) -> None:
    """Drop the line."""
