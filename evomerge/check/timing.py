"""Seconds of a worker: the base answers a few items of each task, and one merge is made."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evomerge.evaluate import Candidate, CandidateKey, Cost, Failed, ItemIds, Say
from evomerge.recipe import Recipe
from evomerge.search import BASE, only
from evomerge.workers import Pool, PreparedJob, count_workers, device_of, open_one_worker

MOST_ITEMS = 64
"""Most items of a task that are timed; batches of a search are hardly larger."""

_STEP = 4
"""A task is timed again with so many times the items, while there is time."""

_GROWTH = 2.0
"""How many times longer the first larger batch is expected to take; then it is as was measured.

A batch takes less than its items one by one, and far less where a model says answers.
"""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What one worker takes.

    item_s: seconds of an item, task by task, in the largest batch that was timed. items: how many
    there were in it. merge_s: seconds to make a merge and put it in place. device: of the worker.
    workers: those that a search would have.
    """

    item_s: Mapping[str, float]
    items: Mapping[str, int]
    merge_s: float
    device: str
    workers: int

    def candidate_s(self, items: Mapping[str, int], merges: int = 1) -> float:
        """Seconds that a worker needs for a candidate with so many items of each task.

        merges: how often it is made; a race scores it in parts, each after a merge.
        """
        return merges * self.merge_s + sum(
            count * self.item_s[task] for task, count in items.items()
        )


class Untimed(Exception):
    """The base or the first merge cannot be scored; the text is the reason.

    Used inside this package only.
    """


def measure(
    preparation: PreparedJob, *, limit_s: float, say: Say, ray_address: str | None = None
) -> Timing:
    """Time the base on every task, for about `limit_s` seconds in all, once it is loaded.

    ray_address: of the cluster to do it on. Nothing is recorded or written. Raises Untimed,
    SelfCheckError, WorkerError, InputError.
    """
    job, suite = preparation.job, preparation.suite
    base = only(job.models.base, out_dtype=preparation.out_dtype)
    pools = {task: suite.scored(task) for task in job.all_tasks}
    with open_one_worker(preparation, ray_address=ray_address, say=say) as pool:
        # The first candidate also pays for loading, the self-check and the choice of batch sizes.
        _cost(pool, base, {task: _spread(ids, 1) for task, ids in pools.items()})
        item_s: dict[str, float] = {}
        items: dict[str, int] = {}
        left_s = limit_s
        for tasks_left, (task, ids) in zip(range(len(pools), 0, -1), pools.items(), strict=True):
            most, count, spent_s, before_s = min(len(ids), MOST_ITEMS), 1, 0.0, 0.0
            while True:
                seconds = _cost(pool, base, {task: _spread(ids, count)}).evaluate_s
                item_s[task], items[task] = seconds / count, count
                spent_s += seconds
                growth = max(1.0, seconds / before_s) if before_s else _GROWTH
                if count == most or spent_s + growth * seconds > left_s / tasks_left:
                    break
                count, before_s = min(_STEP * count, most), seconds
            left_s -= spent_s
        start = preparation.space.decode(preparation.space.start)
        one = {job.all_tasks[0]: _spread(pools[job.all_tasks[0]], 1)}
        begun = time.perf_counter()
        merge_s = _cost(pool, start, one).merge_s
        if time.perf_counter() - begun < limit_s / 2:  # the first one also sorts and checks
            merge_s = _cost(pool, start, one).merge_s
    return Timing(
        item_s=item_s,
        items=items,
        merge_s=merge_s,
        device=device_of(job.compute, ray_address=ray_address),
        workers=count_workers(job.compute, ray_address=ray_address),
    )


def _cost(pool: Pool, recipe: Recipe, items: ItemIds) -> Cost:
    candidate = Candidate(
        key=CandidateKey(0, 0), kind="baseline", label=BASE, recipe=recipe, items=items
    )
    [(_, outcome)] = pool.evaluate([candidate])
    if isinstance(outcome, Failed):
        raise Untimed(outcome.reason)
    return outcome.cost


def _spread(ids: Sequence[int], count: int) -> tuple[int, ...]:
    """So many items, evenly from all parts of a task."""
    return tuple(ids[place * len(ids) // count] for place in range(count))
