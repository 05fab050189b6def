"""The draw of each generation's items: how many of each task, and the checks on what is drawn.

Draws depend only on the seed, the generation and the results learnt so far. So a search that is run
again over its record draws the same items.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import JobError
from evomerge.evaluate import TaskItems, share_evenly
from evomerge.job import Draws
from evomerge.registry import package_errors
from evomerge.search.sampling.responses import gather_responses
from evomerge.search.sampling.sample import Sample, TaskSample
from evomerge.search.sampling.samplers import BUILT_IN, sampler_of


class ItemDraws:
    """Samples of the search items of every task.

    pools: task -> its search items, in the order of the job. metrics: task -> the metrics that the
    search uses, named as in TaskItems.metrics; with facts.one_metric one for each task. kind: see
    EvaluationSpec.draws. seed: the job's. parents: places of the parents in the first results
    learnt. All functions raise JobError where a package's sampler fails or breaks the contract of
    ItemSampler.
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
        self._lessons = 0
        self._first: dict[str, frozenset[int]] = {}
        sampler = sampler_of(kind)
        self._facts = sampler.facts
        with self._errors_of_package("begin"):
            # The sampler has its own copies, because its draws are checked against ours.
            own = {task: pool.copy() for task, pool in self._pools.items()}
            self._sampler = sampler(own, dict(self._metrics), seed=seed, parents=tuple(parents))

    def learn(self, results: Sequence[Mapping[str, TaskItems]]) -> None:
        """Item results of one generation's candidates, in their order; failed ones are left out.

        The first results are those of the baselines.
        """
        if not self._facts.learns:
            return
        self._lessons += 1
        responses = {}
        for task, pool in self._pools.items():
            for metric in self._metrics[task]:
                nothing = TaskItems(ids=(), metrics={metric: ()})
                scored = [result.get(task, nothing) for result in results]
                responses[task, metric] = gather_responses(scored, metric, pool=pool.tolist())
        with self._errors_of_package("learn"):
            self._sampler.learn(responses)

    @property
    def findings(self) -> Mapping[str, tuple[str, ...]]:
        """task -> what the sampler measured of its own draws and estimates, in sentences."""
        with self._errors_of_package("say its findings"):
            found = self._sampler.findings
            return {str(task): tuple(map(str, sentences)) for task, sentences in found.items()}

    def counts(self, total: int) -> dict[str, int]:
        """Number of items of each task in a sample of `total`, shared evenly.

        A task with fewer items gives all of them. The remainder goes to the first tasks, one each.
        """
        if self.takes_all:
            return {task: len(pool) for task, pool in self._pools.items()}
        return share_evenly(total, {task: len(pool) for task, pool in self._pools.items()})

    def draw(self, generation: int, total: int) -> Sample:
        """A sample of `total` items; see `counts`.

        With facts.every_item it has every item, whatever `total` is. With facts.asks_all_first it
        has every item until enough models have answered them.
        """
        tasks = {}
        for task, count in self.counts(total).items():
            with self._errors_of_package(f"draw generation {generation} of {task}"):
                drawn = self._sampler.draw_task(task, count, generation)
                problem = _breach(drawn, self._pools[task], count)
                if problem is None and drawn.estimate is not None and not self._facts.whole_only:
                    problem = "it has an estimate of its own; that is only for facts.whole_only"
                if problem is None and not self._repeats(task, drawn):
                    problem = "the items differ from the first draw, but facts.same_items is true"
                if problem is None and self._kind not in BUILT_IN:
                    again = self._sampler.draw_task(task, count, generation)
                    if not _alike(drawn, again):
                        problem = "a second draw differs; take all random bits from self.bits"
            if problem is not None:
                raise JobError(
                    f"evaluation.draws: {self._kind}: generation {generation} of {task}: {problem}"
                )
            tasks[task] = drawn if self._kind in BUILT_IN else self._checked(drawn, task)
        return Sample(tasks=tasks)

    @property
    def takes_all(self) -> bool:
        """Whether the next sample is every item."""
        if not self._facts.asks_all_first:
            return self._facts.every_item
        with self._errors_of_package("say whether it is ready"):
            return self._lessons < 2 or not self._sampler.ready

    def _checked(self, drawn: TaskSample, task: str) -> TaskSample:
        """A copy of a package's sample, with a check that its estimate is a finite number."""
        own, estimate = _own_values(drawn), drawn.estimate
        if estimate is None:
            return own

        def checked(outcomes: NDArray[np.float64]) -> float:
            with self._errors_of_package(f"estimate {task}"):
                found = float(estimate(outcomes.copy()))
                if not math.isfinite(found):
                    raise ValueError(f"{found} is no score")
            return found

        return replace(own, estimate=checked)

    def _repeats(self, task: str, drawn: TaskSample) -> bool:
        """Whether the items are those of the first draw, where a sampler must repeat them.

        A sampler that learns may change them.
        """
        if not self._facts.same_items or self._facts.learns:
            return True
        items = frozenset(drawn.items.tolist())
        return self._first.setdefault(task, items) == items

    @contextmanager
    def _errors_of_package(self, action: str) -> Iterator[None]:
        """Turn an error in a package's code into a JobError of one line that names the action."""
        if self._kind in BUILT_IN:
            yield
            return
        with package_errors(
            lambda raised: JobError(f"evaluation.draws: {self._kind} cannot {action} ({raised})")
        ):
            yield


def _own_values(drawn: TaskSample) -> TaskSample:
    """A copy of the sample in plain arrays and numbers, which a record can hold."""
    return TaskSample(
        items=np.array(drawn.items, dtype=np.int64),
        scales=np.array(drawn.scales, dtype=np.float64),
        guesses={str(m): np.array(g, dtype=np.float64) for m, g in drawn.guesses.items()},
        offsets={str(metric): float(offset) for metric, offset in drawn.offsets.items()},
        estimate=drawn.estimate,
    )


def _breach(drawn: TaskSample, pool: NDArray[np.int64], count: int) -> str | None:
    """What is wrong with a sample of `count` items of `pool`, in words; None where nothing is."""
    if not isinstance(drawn, TaskSample):
        return f"{type(drawn).__name__} is no evomerge.search.TaskSample"
    items, scales = np.asarray(drawn.items), np.asarray(drawn.scales)
    if items.shape != (count,) or items.dtype != np.int64:
        return f"items are {items.dtype} of shape {items.shape}; give {count} as int64"
    outside = np.setdiff1d(items, pool)
    if len(outside) > 0:
        return f"item {outside[0]} is none of the task's search items"
    if len(np.unique(items)) < count:
        return "an item is drawn twice"
    if scales.shape != (count,) or not (np.isfinite(scales) & (scales > 0.0)).all():
        return "not every item has a scale that is finite and above 0"
    if set(drawn.guesses) != set(drawn.offsets):
        return "guesses and offsets have different metrics"
    for metric, offset in drawn.offsets.items():
        guess = np.asarray(drawn.guesses[metric])
        if guess.shape != (count,) or not np.isfinite([*guess, offset]).all():
            return f"not every item has a finite guess of {metric}, and the task a finite offset"
    return None


def _alike(first: TaskSample, second: TaskSample) -> bool:
    same = [np.array_equal(first.items, second.items), np.array_equal(first.scales, second.scales)]
    same += [first.offsets == second.offsets, set(first.guesses) == set(second.guesses)]
    same += [np.array_equal(first.guesses[m], second.guesses[m]) for m in first.guesses]
    return all(same)
