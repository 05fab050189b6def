"""The race of one generation: which candidate is scored on which block, and which is stopped.

A race depends only on the candidates and their results. So it decides the same when it runs again
over a record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import WorkerError
from evomerge.evaluate import (
    Candidate,
    Cost,
    Failed,
    Objective,
    Scored,
    TaskItems,
    count_items,
    fold,
    leaves_of,
    penalty_unit,
    shortfall_unit,
)
from evomerge.search.ledger import Ledger
from evomerge.search.sampling.sample import Sample
from evomerge.study import Trial

# The test that stops a candidate which is very unlikely to be in the better half of its generation.
#
# Races stop losers early so that their items go to candidates whose order is not clear yet (Maron &
# Moore 1997; Birattari et al. 2002). The test is a paired bootstrap: candidates are compared by
# their fitness on the same resampled items.


ERROR_RATE = 0.1
"""Highest chance, over all looks, that a candidate as good as the middle one is stopped."""

RESAMPLES = 400


def resampled_fitness(
    objective: Objective,
    sample: Sample,
    results: Sequence[Mapping[str, TaskItems]],
    thresholds: Sequence[float],
    bits: np.random.PCG64,
) -> NDArray[np.float64]:
    """Fitness (RESAMPLES, n) of n candidates on the same items drawn with replacement; lower is
    better.

    results: of each candidate, all on the same first items of the sample. Each draw is penalised
    as Objective.fitness penalises a generation.
    """
    wanted = [term.metric for term in objective.terms]
    wanted += [constraint.metric for constraint in objective.constraints]
    leaves = leaves_of(wanted)
    means = np.empty((RESAMPLES, len(results), len(leaves)))
    for task in dict.fromkeys(metric.task for metric in leaves):
        count = len(results[0][task].ids)
        drawn = (bits.random_raw(RESAMPLES * count) % np.uint64(count)).astype(np.intp)
        rows = drawn.reshape(RESAMPLES, count)
        for column, metric in enumerate(leaves):
            if metric.task != task:
                continue
            offset = sample.tasks[task].offsets.get(metric.key, 0.0)
            for place, result in enumerate(results):
                terms = sample.tasks[task].terms(result[task], metric.key)
                means[:, place, column] = offset + terms[rows].mean(axis=1)
    means = fold(means, leaves, wanted)
    scored = len(objective.terms)
    scores = objective.combine(means[..., :scored])
    fitness, unit = -scores, penalty_unit(scores)[:, None]
    for column, threshold in enumerate(thresholds, start=scored):
        # Another order of these operations rounds differently, and may stop others in a tie.
        short = np.maximum(0.0, threshold - means[..., column])
        fitness += unit * short / shortfall_unit(threshold)
    return fitness


def find_losers(resampled: NDArray[np.float64], better: int, *, looks: int) -> NDArray[np.bool_]:
    """Which of n candidates are out of the best `better`, (n,) bool.

    resampled: (resamples, n) of `resampled_fitness`. A candidate is out when it is at least as good
    as the one at place `better` in fewer than ERROR_RATE / `looks` of the resamples. looks: how
    often a generation is tested.
    """
    count = resampled.shape[1]
    if count <= better:
        return np.zeros(count, dtype=np.bool_)
    order = np.argsort(resampled.mean(axis=0), kind="stable")
    middle = resampled[:, order[better - 1]]
    as_good = (resampled <= middle[:, None]).mean(axis=0)
    losers: NDArray[np.bool_] = as_good < ERROR_RATE / looks
    losers[order[:better]] = False
    return losers


def rank_fitness(fitness: NDArray[np.float64], blocks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Fitness (n,) in which a candidate that was stopped earlier is worse than all that went on.

    fitness: (n,), each on the items that the candidate was scored on. blocks: (n,), how many blocks
    each was scored on. Differences stay among candidates with the same number of blocks.
    """
    ranked = fitness.copy()
    worst = -np.inf
    for reached in sorted(set(blocks.tolist()), reverse=True):
        group = blocks == reached
        if np.isfinite(worst):
            next_worst = float(np.nextafter(worst, np.inf))
            ranked[group] += max(0.0, next_worst - ranked[group].min())
            ranked[group] = np.maximum(ranked[group], next_worst)  # the sum may have been rounded
        worst = max(worst, float(ranked[group].max()))
    return ranked


LEAST_OF_TASK = 8
"""Fewest items of a task in a block of a race: fewer are too few to resample."""

MOST_BLOCKS = 4
"""Most blocks that an unstopped candidate is sure to get; a race has as many more to give."""


def count_blocks(least: int, *, races: bool) -> int:
    """Blocks that every candidate is scored on unless it is stopped.

    least: items of the task that has the fewest. races: whether the job stops candidates early.
    """
    return min(MOST_BLOCKS, least // LEAST_OF_TASK) if races and least >= LEAST_OF_TASK else 1


_STREAM = 0x72616365
"""Keeps the random bits of races apart from those of draws."""


@dataclass(eq=False)
class Runner:
    """A candidate in a race.

    failed: its failure, if it failed. trial: its record, once it is scored no further.
    """

    candidate: Candidate
    blocks: list[Scored]
    failed: Failed | None = None
    trial: Trial | None = None

    @property
    def goes_on(self) -> bool:
        """Whether it has neither failed nor been stopped."""
        return self.failed is None and self.trial is None

    @property
    def tasks(self) -> dict[str, TaskItems]:
        """Its results in all blocks so far."""
        return join_results([block.tasks for block in self.blocks])


class Race:
    """One generation on its sample.

    sample: items to score in their order; there may be twice as many as in the first
    `blocks_for_all` blocks. of: number of blocks in the sample. blocks_for_all: number of blocks
    that every candidate is scored on unless it is stopped. key: seeds the resampling.
    """

    def __init__(
        self,
        ledger: Ledger,
        sample: Sample,
        *,
        of: int,
        blocks_for_all: int,
        thresholds: Sequence[float],
        key: tuple[int, ...],
    ) -> None:
        self.sample = sample
        self._ledger = ledger
        self._blocks = [sample.block(number, of=of) for number in range(of)]
        self._blocks_for_all = blocks_for_all
        self._thresholds = thresholds
        self._key = key

    def run(self, genomes: Sequence[Runner], elites: Sequence[Runner]) -> None:
        """Score the candidates block by block, and record each one when it is stopped or done.

        Items that stopped candidates leave go to the others. Failed candidates are recorded last:
        where every genome fails, the genomes are hardly the cause. Then WorkerError is raised and
        no failure is recorded, so that the next run tries all of them again.
        """
        sizes = [count_items(block) for block in self._blocks]
        left = len(genomes) * sum(sizes[: self._blocks_for_all])
        better = (len(genomes) + 1) // 2
        for number, size in enumerate(sizes):
            going = [runner for runner in genomes if runner.goes_on]
            if not going or left < len(going) * size:
                break
            left -= len(going) * size
            staying = [runner for runner in elites if runner.goes_on]
            self._score([*going, *(staying if number < self._blocks_for_all else ())], number)
            self._stop_losers(genomes, better, looks=len(sizes) - 1)
        self._refuse_if_all_failed(genomes)
        for runner in (*genomes, *elites):
            if runner.trial is None:
                self._record(runner)

    def _refuse_if_all_failed(self, genomes: Sequence[Runner]) -> None:
        """Raise WorkerError if all genomes failed, unless they were recorded so before."""
        reasons = [runner.failed.reason for runner in genomes if runner.failed is not None]
        find = self._ledger.study.find
        if len(reasons) < len(genomes) or all(find(runner.candidate.key) for runner in genomes):
            return
        number = genomes[0].candidate.key.generation
        raise WorkerError(
            f"all {len(genomes)} candidates of generation {number} failed, so none is recorded: "
            f"{reasons[0]}"
        )

    def resampled(
        self, runners: Sequence[Runner], *, blocks: int, look: int
    ) -> NDArray[np.float64]:
        """Fitness (resamples, runners) by the first `blocks` blocks, all on the same resamples."""
        results = [join_results([b.tasks for b in runner.blocks[:blocks]]) for runner in runners]
        bits = np.random.PCG64(np.random.SeedSequence((*self._key, _STREAM, look)))
        objective = self._ledger.preparation.objective
        return resampled_fitness(objective, self.sample, results, self._thresholds, bits)

    def _score(self, runners: Sequence[Runner], number: int) -> None:
        candidates = [runner.candidate for runner in runners]
        outcomes = self._ledger.score_block(candidates, number, self._blocks[number])
        for runner, outcome in zip(runners, outcomes, strict=True):
            if isinstance(outcome, Scored):
                runner.blocks.append(outcome)
            else:
                runner.failed = outcome

    def _stop_losers(self, genomes: Sequence[Runner], better: int, *, looks: int) -> None:
        going = [runner for runner in genomes if runner.goes_on]
        reached = len(going[0].blocks) if going else 0
        if len(going) <= better or reached > looks:
            return
        resampled = self.resampled(going, blocks=reached, look=reached)
        for runner, loses in zip(going, find_losers(resampled, better, looks=looks), strict=True):
            if loses:
                self._record(runner)

    def _record(self, runner: Runner) -> None:
        """Record a runner that is scored no further."""
        cost = total_cost([block.cost for block in runner.blocks])
        if runner.failed is None:
            tasks = runner.tasks
            items = {task: scored.ids for task, scored in tasks.items()}
            candidate = replace(runner.candidate, items=items)
            outcome = Scored(tasks=tasks, cost=cost)
            runner.trial = self._ledger.conclude(
                candidate, outcome, means=self.sample.means(tasks), blocks=runner.blocks
            )
            return
        begun = self._blocks[: len(runner.blocks) + 1]
        items = {
            task: tuple(sorted(item for block in begun for item in block.get(task, ())))
            for task in self.sample.tasks
        }
        candidate = replace(runner.candidate, items=items)
        failed = replace(runner.failed, cost=total_cost([cost, runner.failed.cost]))
        runner.trial = self._ledger.conclude(candidate, failed, means={}, blocks=runner.blocks)


def join_results(blocks: Sequence[Mapping[str, TaskItems]]) -> dict[str, TaskItems]:
    """Item results of several blocks joined, ids sorted; the blocks share no item."""
    joined = {}
    for task in dict.fromkeys(task for block in blocks for task in block):
        parts = [block[task] for block in blocks if task in block]
        ids = [item for part in parts for item in part.ids]
        order = sorted(range(len(ids)), key=ids.__getitem__)
        shared = [m for m in parts[0].metrics if all(m in part.metrics for part in parts)]
        columns = {metric: [v for part in parts for v in part.metrics[metric]] for metric in shared}
        joined[task] = TaskItems(
            ids=tuple(ids[place] for place in order),
            metrics={m: tuple(values[place] for place in order) for m, values in columns.items()},
        )
    return joined


def total_cost(costs: Sequence[Cost]) -> Cost:
    """What several parts cost together."""
    return Cost(
        merge_s=sum(cost.merge_s for cost in costs),
        evaluate_s=sum(cost.evaluate_s for cost in costs),
        forward_s=sum(cost.forward_s for cost in costs),
        items=sum(cost.items for cost in costs),
        hops=sum(cost.hops for cost in costs),
        shared_hops=sum(cost.shared_hops for cost in costs),
    )
