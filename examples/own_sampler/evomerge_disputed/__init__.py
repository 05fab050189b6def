"""Disputed items: those on which the parents differ come more often, and are weighted for it.

A whole way to draw items in a package of its own; `pip install ./examples/own_sampler` adds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from evomerge.job import DrawFacts
from evomerge.search import ItemSampler, Responses, TaskSample

TIMES = 4.0
"""How much likelier a disputed item is to be picked than another."""


class DisputedItems(ItemSampler):
    """A merge can hardly gain or lose where all parents give the same answer."""

    facts = DrawFacts(
        learns=True,
        preference=", those on which the parents differ more often and weighted for it",
    )

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.chances = {task: np.ones(len(pool)) for task, pool in self.pools.items()}
        self.knows_parents = False

    def learn(self, responses: Mapping[tuple[str, str], Responses]) -> None:
        """Look where the parents differ; they are among the baselines, which come first."""
        if self.knows_parents:
            return
        self.knows_parents = True
        for (task, _), outcomes in responses.items():
            parents = outcomes[list(self.parents)]  # (parents, items), NaN where not scored
            highest = np.fmax.reduce(parents, axis=0, initial=np.nan)
            lowest = np.fmin.reduce(parents, axis=0, initial=np.nan)
            self.chances[task][highest > lowest] = TIMES

    def draw_task(self, task: str, count: int, generation: int) -> TaskSample:
        """Fresh items each generation, with the weights that keep estimates unbiased."""
        return self.draw_by(task, self.chances[task], count, generation)
