"""Which items each generation is scored on, given what earlier candidates answered.

Draws follow from the seed, the generation and the results told so far, so a search that is run
again over its record draws the same items. It does not know how many items a generation needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluate import ItemIds, TaskItems, share_evenly
from evomerge.job import Draws
from evomerge.search.sampling.estimators import FEWEST_LEFT_OUT, EstimatorChoice, choose_estimator
from evomerge.search.sampling.informative import (
    disagreement,
    draw_probabilities,
    draw_weighted,
    predict_items,
)
from evomerge.search.sampling.responses import gather_responses, whole_rows

# What a generation is scored on, and how results on it become estimates of whole tasks.
#
# Items stand in the order in which they are scored, so that any beginning of it is a sample too.
# It does not know how items are chosen.


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskSample:
    """Items of one task.

    The task's mean by a metric is estimated, without bias, by the metric's offset and the mean of
    scale x (outcome - guess) over the items scored so far (difference estimator, Särndal, Swensson
    & Wretman 1992, section 6.3). Scales 1, guesses and offset 0 are the plain mean.

    items: (m,) int64, in the order of scoring. scales: (m,) float64. guesses: metric -> (m,)
    float64, what each item's outcome was expected to be. offsets: metric -> mean of the guesses
    over the whole task. A metric in neither has guesses and offset 0. estimate: where the mean is
    estimated otherwise, by outcomes (m,) on all the items in ascending order.
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
        assert set(seen) == set(outcome), "these items are no beginning of the sample"
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
        """The items of block `number` from 0 of `of` blocks alike; tasks that have none are out."""
        items = {}
        for name, task in self.tasks.items():
            # Rounded down, so that no beginning of the blocks has more than its share.
            start, stop = (len(task.items) * edge // of for edge in (number, number + 1))
            items[name] = tuple(sorted(task.items[start:stop].tolist()))
        return {name: ids for name, ids in items.items() if ids}

    def means(self, scored: Mapping[str, TaskItems]) -> dict[str, dict[str, float]]:
        """task -> metric -> estimate, from item results on any beginning of the sample."""
        return {
            name: {metric: self.tasks[name].mean(items, metric) for metric in items.metrics}
            for name, items in scored.items()
        }


def plain(items: NDArray[np.int64]) -> TaskSample:
    """A sample whose estimate is the mean of its outcomes."""
    return TaskSample(items=items, scales=np.ones(len(items)), guesses={}, offsets={})


RECENT = 192
"""Results of so many candidates say where candidates disagree: with default populations those of
the last ten to twenty generations, while the distribution moves on."""

_STREAMS = {"order": 0, "draw": 1, "blocks": 2}
"""What random bits are for; draws of one purpose never depend on those of another."""


class ItemDraws:
    """Samples of the search items of every task.

    pools: task -> its search items, in the order of the job. metrics: task -> the metrics that the
    search goes by, named as in TaskItems.metrics; with `anchors` one of each. kind: see
    EvaluationSpec.draws. seed: the job's. parents: which of the first results learnt are theirs.
    """

    def __init__(
        self,
        pools: Mapping[str, Sequence[int]],
        metrics: Mapping[str, Sequence[str]],
        *,
        kind: Draws,
        seed: int,
        parents: Sequence[int] = (),
    ) -> None:
        self.size = sum(len(pool) for pool in pools.values())
        self._pools = {task: np.array(pool, dtype=np.int64) for task, pool in pools.items()}
        self._metrics = {task: tuple(metrics[task]) for task in pools}
        self._kind = kind
        self._seed = seed
        self._responses: dict[tuple[str, str], NDArray[np.float64]] = {
            (task, metric): np.empty((0, len(pool)))
            for task, pool in pools.items()
            for metric in self._metrics[task]
        }
        self._fixed: dict[str, TaskSample] = {}
        self._parents = tuple(parents)
        self._choices: dict[str, EstimatorChoice] = {}
        self._lessons = 0
        self._starts = 0  # rows of the baselines, which are first

    def learn(self, results: Sequence[Mapping[str, TaskItems]]) -> None:
        """Item results of one generation's candidates, in their order; failed ones are left out.

        The baselines' come first.
        """
        if self._kind not in ("informative", "anchors") or self._choices:
            return
        self._lessons += 1
        self._starts = len(results) if self._lessons == 1 else self._starts
        known = len(next(iter(self._responses.values())))
        forget = 0
        if self._kind == "informative":
            # The baselines lie far apart; two generations say better where those to come disagree.
            old = self._starts if self._lessons == 3 else 0
            forget = min(known, max(old, known + len(results) - RECENT))
            self._starts = max(0, self._starts - forget)
        for (task, metric), before in self._responses.items():
            nothing = TaskItems(ids=(), metrics={metric: ()})
            scored = [result.get(task, nothing) for result in results]
            rows = gather_responses(scored, metric, pool=self._pools[task].tolist())
            self._responses[task, metric] = np.vstack([before[forget:], rows])

    @property
    def findings(self) -> Mapping[str, tuple[str, ...]]:
        """task -> what was measured of the ways to estimate it from anchors, in sentences."""
        return {task: choice.sentences for task, choice in self._choices.items()}

    def counts(self, total: int) -> dict[str, int]:
        """Items of each task in a sample of `total`: evenly; a task with fewer gives all of them.

        What does not divide goes to the first tasks, one each.
        """
        if self.takes_all:
            return {task: len(pool) for task, pool in self._pools.items()}
        return share_evenly(total, {task: len(pool) for task, pool in self._pools.items()})

    def draw(self, generation: int, total: int) -> Sample:
        """A sample of `total` items; see `counts`.

        With `all` it is every item, with
        `fixed` always the sample of the first call. With `anchors` it is every item until enough
        models have answered them to choose by.
        """
        if self._fixed:
            return Sample(tasks=self._fixed)
        counts = self.counts(total)
        tasks = {
            task: self._draw_task(task, generation, ordinal, counts[task])
            for ordinal, task in enumerate(self._pools)
        }
        if self._kind in ("fixed", "all"):
            self._fixed = tasks
        return Sample(tasks=tasks)

    @property
    def takes_all(self) -> bool:
        """Whether the next sample is every item."""
        return self._kind == "all" or (self._kind == "anchors" and not self._may_choose())

    def _may_choose(self) -> bool:
        """Whether the first generation is known, and enough models beside the parents are."""
        if self._lessons < 2:
            return False
        known = [whole_rows(responses) for responses in self._responses.values()]
        return all(len(np.setdiff1d(rows, self._parents)) >= FEWEST_LEFT_OUT for rows in known)

    def _draw_task(self, task: str, generation: int, ordinal: int, count: int) -> TaskSample:
        pool = self._pools[task]
        known = {m: r for (t, m), r in self._responses.items() if t == task and _says_some(r)}
        if known and self._kind == "informative" and count < len(pool):
            return self._informative(task, known, generation, ordinal, count)
        if known and self._kind == "anchors" and count < len(pool):
            return self._anchors(task, next(iter(known.values())), generation, ordinal, count)
        order = np.argsort(self._bits(generation, ordinal, "order").random_raw(len(pool)))
        return plain(pool[order[:count]])

    def _informative(
        self,
        task: str,
        known: Mapping[str, NDArray[np.float64]],
        generation: int,
        ordinal: int,
        count: int,
    ) -> TaskSample:
        """Items on which recent candidates disagree by any of the metrics come more often."""
        variances = np.zeros(len(self._pools[task]))
        for responses in known.values():
            found = disagreement(responses)
            if found.max() > 0.0:  # metrics differ in their units
                variances = np.maximum(variances, found / found.mean())
        places, inclusion = draw_weighted(
            draw_probabilities(variances), count, self._bits(generation, ordinal, "draw")
        )
        shuffle = self._shuffle(generation, ordinal, count)
        places, inclusion = places[shuffle], inclusion[shuffle]
        guesses = {metric: predict_items(responses) for metric, responses in known.items()}
        return TaskSample(
            items=self._pools[task][places],
            scales=count / (len(self._pools[task]) * inclusion),
            guesses={metric: guess[places] for metric, guess in guesses.items()},
            offsets={metric: float(guess.mean()) for metric, guess in guesses.items()},
        )

    def _anchors(
        self,
        task: str,
        responses: NDArray[np.float64],
        generation: int,
        ordinal: int,
        count: int,
    ) -> TaskSample:
        """The items, and the estimate, that measured best on models left out."""
        if task not in self._choices:
            self._choices[task] = choose_estimator(
                responses, count, seed=self._seed, parents=self._parents
            )
        chosen = self._choices[task].plan(self._bits(generation, ordinal, "draw"))
        return TaskSample(
            items=self._pools[task][chosen.items],
            scales=np.ones(len(chosen.items)),
            guesses={},
            offsets={},
            estimate=lambda outcomes: float(chosen.estimate(outcomes[None])[0]),
        )

    def _shuffle(self, generation: int, ordinal: int, count: int) -> NDArray[np.intp]:
        return np.argsort(self._bits(generation, ordinal, "blocks").random_raw(count))

    def _bits(self, generation: int, ordinal: int, purpose: str) -> np.random.PCG64:
        """Raw output is the only stream that numpy promises never to change."""
        key = (self._seed, generation, ordinal, _STREAMS[purpose])
        return np.random.PCG64(np.random.SeedSequence(key))


def _says_some(responses: NDArray[np.float64]) -> bool:
    return bool((~np.isnan(responses)).any())
