"""The seam of item draws: what whoever draws the items of each generation is given, and gives.

It does not know who draws, nor how many items a generation needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.job import DrawFacts
from evomerge.search.sampling.informative import draw_weighted
from evomerge.search.sampling.responses import Responses
from evomerge.search.sampling.sample import TaskSample, plain

Purpose = Literal["order", "draw", "blocks"]

_STREAMS: Mapping[Purpose, int] = {"order": 0, "draw": 1, "blocks": 2}
"""What random bits are for; draws of one purpose never depend on those of another."""


class ItemSampler(ABC):
    """Draws the items of each generation, of one task at a time.

    A class of this kind has `facts` and `draw_task`; one whose facts say that it learns has `learn`
    too. What it owes to the search, so that scores mean what they say:

    - Draws follow from the seed, the generation and what was learnt, and from nothing else: all
      random bits come from `bits`, no clock is read. A search that goes on over its record asks
      for all of its draws again.
    - Estimates are unbiased over draws, whatever a candidate answers: every item of the task can be
      drawn, and its scale is 1 / (N p) times the number of items drawn, where N is the number of
      items of the task and p the probability with which the item is among those drawn.
      `draw_plain` and `draw_by` see to that.
    - Any beginning of a sample is a sample too, unless facts.whole_only: items stand in an order of
      chance. Candidates race along it.

    What can be checked is checked at every draw: that there are as many items as were asked for,
    all of the task and none twice, and that all weights are finite and above 0.

    pools: task -> its search items (N,) int64, in the order of the job. metrics: task -> the
    metrics that the search goes by. seed: the job's. parents: which rows of the first responses
    learnt are the parents'.
    """

    facts: ClassVar[DrawFacts]

    def __init__(
        self,
        pools: Mapping[str, NDArray[np.int64]],
        metrics: Mapping[str, Sequence[str]],
        *,
        seed: int,
        parents: Sequence[int] = (),
    ) -> None:
        self.pools = dict(pools)
        self.metrics = {task: tuple(metrics[task]) for task in pools}
        self.seed = seed
        self.parents = tuple(parents)

    @abstractmethod
    def draw_task(self, task: str, count: int, generation: int) -> TaskSample:
        """`count` items of a task, of which there are that many, for a generation from 1."""

    def learn(self, responses: Mapping[tuple[str, str], Responses]) -> None:  # noqa: B027
        """Take what the candidates of a generation answered; called where facts.learns.

        First with the baselines, then after each generation with its candidates in their order;
        those that failed are left out. responses: (task, metric) -> (candidates, N) float64, items
        as in `pools`, NaN where a candidate was not scored on the item.
        """

    @property
    def ready(self) -> bool:
        """Whether it knows enough to draw; with facts.asks_all_first all items are scored until."""
        return True

    @property
    def findings(self) -> Mapping[str, tuple[str, ...]]:
        """task -> what was measured of the way to draw and estimate, in sentences for a report."""
        return {}

    def draw_plain(self, task: str, count: int, generation: int) -> TaskSample:
        """`count` items, all with the same probability."""
        pool = self.pools[task]
        order = np.argsort(self.bits(task, generation, "order").random_raw(len(pool)))
        return plain(pool[order[:count]])

    def draw_by(
        self,
        task: str,
        probabilities: NDArray[np.float64],
        count: int,
        generation: int,
        *,
        guesses: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> TaskSample:
        """`count` different items by their probabilities, weighted so that estimates are unbiased.

        probabilities: (N,) of one pick, positive. guesses: metric -> (N,) expected outcomes, which
        make estimates surer (a difference estimator). Raises ValueError.
        """
        pool, guesses = self.pools[task], guesses or {}
        places, inclusion = draw_weighted(probabilities, count, self.bits(task, generation, "draw"))
        shuffle = np.argsort(self.bits(task, generation, "blocks").random_raw(count))
        places, inclusion = places[shuffle], inclusion[shuffle]
        return TaskSample(
            items=pool[places],
            scales=count / (len(pool) * inclusion),
            guesses={metric: guess[places] for metric, guess in guesses.items()},
            offsets={metric: float(guess.mean()) for metric, guess in guesses.items()},
        )

    def bits(self, task: str, generation: int, purpose: Purpose) -> np.random.PCG64:
        """Random bits of a draw, whose raw output no version of numpy changes."""
        ordinal = list(self.pools).index(task)
        key = (self.seed, generation, ordinal, _STREAMS[purpose])
        return np.random.PCG64(np.random.SeedSequence(key))
