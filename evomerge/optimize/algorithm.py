"""The facts of an optimiser before it is made: its name, limits and strengths.

A job is checked against them before anything large is imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from evomerge.optimize.base import Optimizer, ParetoOptimizer

Mode = Literal["single", "pareto"]

MANY_GENES = 16
"""From so many genes on, each matters so little that the noise of few items misleads CMA-ES."""


def default_population(n: int) -> int:
    """Population for n genes: 4 + floor(3 ln n) (Hansen 2016, eq. 48), whatever the workers."""
    return 4 + math.floor(3 * math.log(n))


class OptimizerSettings(Protocol):
    """The settings of a job's optimiser, for example an `OptimizerSpec`."""

    @property
    def algorithm(self) -> str:
        """The name of an algorithm, or `auto`."""
        ...

    @property
    def seed(self) -> int:
        """The seed of all random draws."""
        ...

    @property
    def sigma(self) -> float:
        """The first step size, in the unit box."""
        ...

    @property
    def population(self) -> int | Literal["auto"]:
        """Genomes in a generation."""
        ...


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """An optimiser as a job names it: how it is made, its limits, and what it is best for.

    single: makes the `Optimizer` of one score, from `start`, `sigma`, `population`, `seed` and
        `binary` as in `make_optimizer`; None where it is not for `mode: single`.
    pareto: makes the `ParetoOptimizer` of a front, from `starts` and `objectives` too; None where
        it is not for `mode: pareto`.
    purpose: when to use it, for the documentation. citation: where it is published.
    population: genomes in a generation where the job does not say it, by the number of genes and
        how many of them are switches.
    least_population: the fewest genomes that a generation may have.
    objectives: the only number of objectives that it takes in `mode: pareto`; None for any.
    least_genes, least_switches, most_continuous: where `auto` may take it, by the number of genes,
        of switches, and of genes that are not switches. A job that names it may have any numbers.
    """

    name: str
    single: Callable[..., Optimizer] | None = None
    pareto: Callable[..., ParetoOptimizer] | None = None
    purpose: str = ""
    citation: str = ""
    population: Callable[[int, int], int] = lambda genes, switches: default_population(genes)
    least_population: int = 4
    objectives: int | None = None
    least_genes: int = 1
    least_switches: int = 0
    most_continuous: float = math.inf

    def serves(self, mode: Mode) -> bool:
        """Whether it is for jobs of this mode."""
        return (self.single if mode == "single" else self.pareto) is not None

    def is_for(self, objectives: int) -> bool:
        """Whether it is for fronts over this number of objectives."""
        return self.objectives in (None, objectives)

    def suits(self, settings: OptimizerSettings, *, genes: int, switches: int) -> bool:
        """Whether `auto` may take it for these numbers of genes and of switches among them."""
        return (
            genes >= self.least_genes
            and switches >= self.least_switches
            and genes - switches <= self.most_continuous
            and self._asked_for(settings, genes, switches) >= self.least_population
        )

    def population_of(self, settings: OptimizerSettings, *, genes: int, switches: int) -> int:
        """Genomes in a generation of a job that uses it."""
        return max(self._asked_for(settings, genes, switches), self.least_population)

    def _asked_for(self, settings: OptimizerSettings, genes: int, switches: int) -> int:
        population = settings.population
        return self.population(genes, switches) if population == "auto" else population
