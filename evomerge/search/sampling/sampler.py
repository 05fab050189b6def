"""The interface of item samplers, which draw the items of each generation."""

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
"""The stream of random bits for each purpose; one purpose never depends on another's bits."""


class ItemSampler(ABC):
    """Draws the items of each generation, of one task at a time.

    A subclass has `facts` and `draw_task`. If its facts say that it learns, it has `learn` too. It
    must keep these rules, because the meaning of scores depends on them:

    - Draws depend only on the seed, the generation and what was learnt: all random bits come from
      `bits`, and no clock is read. A resumed search repeats all of its draws.
    - Estimates are unbiased over draws, whatever a candidate answers: every item of the task can be
      drawn, and its scale is 1 / (N p) times the number of items drawn, where N is the number of
      items of the task and p the probability that the item is among those drawn. `draw_plain` and
      `draw_by` keep this rule.
    - The first items of a sample are a sample too, unless facts.whole_only: items are in random
      order. Races score candidates along this order.

    Every draw is checked as far as possible: it must have the requested number of items, all of the
    task and none twice, and all scales must be finite and above 0.

    pools: task -> its search items (N,) int64, in the order of the job. metrics: task -> the
    metrics that the search uses. seed: the job's. parents: rows of the parents in the first
    responses that are learnt.
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
        """`count` items of a task, which has at least that many; generations count from 1."""

    def learn(self, responses: Mapping[tuple[str, str], Responses]) -> None:  # noqa: B027
        """Learn from the answers of a generation's candidates; called where facts.learns.

        The first call is with the baselines, then there is a call after each generation with its
        candidates in their order. Failed candidates are left out. responses: (task, metric) ->
        (candidates, N) float64, items as in `pools`, NaN where a candidate was not scored on the
        item.
        """

    @property
    def ready(self) -> bool:
        """Whether it can draw; with facts.asks_all_first, all items are scored until it can."""
        return True

    @property
    def findings(self) -> Mapping[str, tuple[str, ...]]:
        """task -> what it measured of its own draws and estimates, in sentences for a report."""
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
        lower the variance of estimates (a difference estimator). Raises ValueError.
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
        """Random bits of a draw; their raw output is the same in every version of numpy."""
        ordinal = list(self.pools).index(task)
        key = (self.seed, generation, ordinal, _STREAMS[purpose])
        return np.random.PCG64(np.random.SeedSequence(key))
