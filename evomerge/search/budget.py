"""What a search may still spend: when it ends, and how many items a generation can afford.

Only recorded trials count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.job import BudgetSpec
from evomerge.study import Trial


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The budget of a stage.

    budget: the limits. each: items that a candidate has on average. population: genomes of a
    generation. elites: most candidates that are scored again with each generation.
    """

    budget: BudgetSpec
    each: int
    population: int
    elites: int = 0

    def affordable(self, spent: Sequence[Trial]) -> float:
        """Most items for each candidate of the next generation, if all later ones get as many.

        A limit on candidates leaves each of them `each` items on average, over the whole search.
        With a limit on items or hours alone any number is affordable, and fewer generations follow.
        """
        if self.budget.candidates is None:
            return math.inf
        genomes = sum(trial.kind == "genome" for trial in spent)
        genomes_left = max(self.population, self.budget.candidates - genomes)
        following = genomes_left * (1.0 + self.elites / self.population)
        total = self.budget.candidates * self.each
        if self.budget.items is not None:
            total = min(total, self.budget.items)
        return (total - items_of(spent)) / following

    def end(self, spent: Sequence[Trial], items: int) -> str | None:
        """Why the next generation, with `items` a candidate, cannot begin; None where it can."""
        return self.end_after(
            genomes=sum(trial.kind == "genome" for trial in spent),
            used=items_of(spent),
            hours=sum(trial.cost.merge_s + trial.cost.evaluate_s for trial in spent) / 3600,
            items=items,
        )

    def end_after(self, *, genomes: int, used: int, hours: float, items: int) -> str | None:
        """As `end`, after so many genomes, items and hours of work."""
        budget = self.budget
        if budget.candidates is not None and genomes + self.population > budget.candidates:
            scored = f"{genomes} of {budget.candidates} candidates scored"
            full = genomes >= budget.candidates
            return scored if full else f"{scored}; a generation of {self.population} does not fit"
        needed = (self.population + self.elites) * items
        if budget.items is not None and used + needed > budget.items:
            scored = f"{used:,} of {budget.items:,} items scored"
            return f"{scored}; a generation of {needed:,} does not fit"
        if budget.hours is not None and hours >= budget.hours:
            return f"{hours:.2f} of {budget.hours:g} worker hours spent"
        return None


def items_of(spent: Sequence[Trial]) -> int:
    """Items that these trials were scored on; an item counts each time it was scored."""
    return sum(trial.item_count for trial in spent)


# The number of items of a generation, from how noisy the last generations were.
#
# Early candidates differ much, and a few items tell them apart. Later candidates differ less than
# the noise of a few items. The measure is the reliability of a generation's scores: the variance of
# true differences over that of measured ones.


RELIABILITY = 0.35
"""Share of the variance of scores that should be signal. Evolution averages over generations, so
more generations help it more than surer scores."""

MEMORY = 0.9
"""Weight of the earlier estimate when a generation adds its own variances; the first ten count
alike. The signal is a small difference of two variances, so it takes many generations to see."""

RANGE = 4.0
"""A generation has between 1 / RANGE and RANGE times the items that the job names."""


class Fidelity:
    """Chooses the number of items of the next generation.

    start: items that the job names; half of them are taken until the noise is known. least, most:
    bounds.
    """

    def __init__(self, start: int, *, least: int, most: int) -> None:
        self._least = max(least, math.ceil(start / RANGE))
        self._most = max(self._least, min(most, int(start * RANGE)))
        self._start = start
        self._generations = 0
        self._signal = 0.0
        self._noise = 0.0  # variance of a difference from the generation's mean, of one item

    def learn(self, resampled: NDArray[np.float64], items: int) -> None:
        """Learn from the first block of a generation, of `items` items.

        resampled: (resamples, n) fitness of its candidates, paired, as in racing.
        """
        if resampled.shape[1] < 2 or not np.isfinite(resampled).all():
            return
        centred = resampled - resampled.mean(axis=1, keepdims=True)
        bessel = resampled.shape[1] / (resampled.shape[1] - 1)
        noise = float(centred.var(axis=0).mean()) * bessel
        measured = float(np.square(centred.mean(axis=0)).mean()) * bessel
        signal = measured - noise  # may be below 0 by chance; cut at 0 it would be biased upwards
        self._generations += 1
        new = max(1.0 - MEMORY, 1.0 / self._generations)
        self._signal = (1.0 - new) * self._signal + new * signal
        self._noise = (1.0 - new) * self._noise + new * noise * items

    def items(self, *, affordable: float = math.inf) -> int:
        """Items of the next generation: at most `affordable`, but never below the least."""
        if self._generations == 0:
            wanted = self._start / 2
        elif self._signal <= 0.0:
            wanted = float(self._most)
        else:
            wanted = RELIABILITY / (1.0 - RELIABILITY) * self._noise / self._signal
        return max(self._least, int(min(wanted, self._most, affordable)))
