"""What a search may still spend: when it ends, and how many items a generation can afford.

Only what is recorded counts. It does not know why a generation wants how many items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evomerge.job import BudgetSpec
from evomerge.study import Trial


@dataclass(frozen=True, kw_only=True)
class Spending:
    """The budget of a stage.

    budget: the limits. each: items that a candidate has on the average. population: genomes of a
    generation. elites: candidates that are scored again with them, at most.
    """

    budget: BudgetSpec
    each: int
    population: int
    elites: int = 0

    def affordable(self, spent: Sequence[Trial]) -> float:
        """Items of each candidate of the next generation that leave as many to all that follow.

        Where candidates are limited they have `each` items on the average, over the whole search;
        where only items or hours are, fewer generations follow, and any number is affordable.
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
        """Why the next generation, of `items` a candidate, is not begun; None where it is."""
        budget = self.budget
        genomes = sum(trial.kind == "genome" for trial in spent)
        if budget.candidates is not None and genomes + self.population > budget.candidates:
            scored = f"{genomes} of {budget.candidates} candidates scored"
            full = genomes >= budget.candidates
            return scored if full else f"{scored}; a generation of {self.population} does not fit"
        used = items_of(spent)
        needed = (self.population + self.elites) * items
        if budget.items is not None and used + needed > budget.items:
            scored = f"{used:,} of {budget.items:,} items scored"
            return f"{scored}; a generation of {needed:,} does not fit"
        hours = sum(trial.cost.merge_s + trial.cost.evaluate_s for trial in spent) / 3600
        if budget.hours is not None and hours >= budget.hours:
            return f"{hours:.2f} of {budget.hours:g} worker hours spent"
        return None


def items_of(spent: Sequence[Trial]) -> int:
    """Items that these were scored on, each as often as it was."""
    return sum(trial.item_count for trial in spent)
