"""When a candidate of a generation has been scored enough to be out of its better half.

Races stop losers early so that their items go to candidates whose order is open (Maron & Moore
1997; Birattari et al. 2002). The test is a paired bootstrap: candidates are compared on the same
resampled items, whatever the objective makes of them. It does not know where results come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import TaskItems
from evomerge.evaluate.objective import PENALTY, Objective, shortfall_unit
from evomerge.sampling.sample import Sample

ERROR_RATE = 0.1
"""Chance, at most, that a candidate as good as the middle one is stopped, over all looks."""

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

    results: of each candidate, on one beginning of the sample alike. The penalty of a constraint is
    that of Objective.fitness at a spread of at most 1.
    """
    wanted = [term.metric for term in objective.terms]
    wanted += [constraint.metric for constraint in objective.constraints]
    means = np.empty((RESAMPLES, len(results), len(wanted)))
    for task in dict.fromkeys(metric.task for metric in wanted):
        count = len(results[0][task].ids)
        drawn = (bits.random_raw(RESAMPLES * count) % np.uint64(count)).astype(np.intp)
        rows = drawn.reshape(RESAMPLES, count)
        for column, metric in enumerate(wanted):
            if metric.task != task:
                continue
            offset = sample.tasks[task].offsets.get(metric.key, 0.0)
            for place, result in enumerate(results):
                terms = sample.tasks[task].terms(result[task], metric.key)
                means[:, place, column] = offset + terms[rows].mean(axis=1)
    scored = len(objective.terms)
    fitness = -objective.combine(means[..., :scored])
    for column, threshold in enumerate(thresholds, start=scored):
        # Another order of these operations rounds otherwise, and may stop others in a tie.
        short = np.maximum(0.0, threshold - means[..., column])
        fitness += PENALTY * short / shortfall_unit(threshold)
    return fitness


def find_losers(resampled: NDArray[np.float64], better: int, *, looks: int) -> NDArray[np.bool_]:
    """Which of n candidates are out of the best `better`, (n,) bool.

    resampled: (resamples, n) of `resampled_fitness`. A candidate is out when it is at least as good
    as the one at place `better` in fewer than ERROR_RATE / `looks` of the resamples. looks: how
    often a generation is looked at.
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
    """Fitness (n,) in which whoever was stopped earlier is worse than all who went on.

    fitness: (n,), each on what it was scored on. blocks: (n,), how many blocks that was. Among
    candidates stopped together, and among those that were never, differences stay.
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
