"""Which items each generation is scored on, given what earlier candidates answered.

Draws follow from the seed, the generation and the results told so far, so a search that is run
again over its record draws the same items. It does not know how many items a generation needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import TaskItems
from evomerge.evaluate.splits import share_evenly
from evomerge.job import Draws
from evomerge.sampling.estimators import FEWEST_LEFT_OUT, EstimatorChoice, choose_estimator
from evomerge.sampling.informative import (
    disagreement,
    draw_probabilities,
    draw_weighted,
    predict_items,
)
from evomerge.sampling.responses import gather_responses, whole_rows
from evomerge.sampling.sample import Sample, TaskSample, plain

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
