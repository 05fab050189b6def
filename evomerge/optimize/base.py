"""The interface of every optimiser: `ask` gives genomes, `tell` takes their fitness.

An optimiser searches the unit box, in which some coordinates are switches. It draws from a
generator of its own. So an optimiser that is made again with the same seed, and is told the
recorded fitness, asks for the same genomes to the last bit: this is how a search resumes.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Optimizer(Protocol):
    """Proposes genomes and learns from their fitness; `ask` and `tell` strictly take turns.

    optimizer = make_optimizer(OptimizerSpec(), start=np.full(8, 0.5))
    while optimizer.stop is None:
        genomes = optimizer.ask()
        optimizer.tell(np.array([fitness(genome) for genome in genomes]))
    """

    population: int
    """Genomes in a generation."""

    def ask(self) -> NDArray[np.float64]:
        """The next generation, (population, n) float64 in [0, 1]; a switch is on above 1/2."""
        ...

    def tell(self, fitness: NDArray[np.float64], active: NDArray[np.bool_] | None = None) -> None:
        """Fitness of the genomes just asked for, (population,) in their order.

        Lower is better, and all of it is finite: a failed candidate is worse than every real one.
        active: (population, n), which genes had an effect in which genome; None is all of them. An
        optimiser does not credit a gene without effect for the fitness of its genome.
        """
        ...

    @property
    def mean(self) -> NDArray[np.float64] | None:
        """Mean of the search distribution, (n,) in [0, 1]; None where there is no distribution.

        A switch is above 1/2 in the mean where its likelier value is on.
        """
        ...

    @property
    def stop(self) -> str | None:
        """Why more generations cannot help, in words; None while they can.

        An optimiser does not have to watch the budget.
        """
        ...


class ParetoOptimizer(Protocol):
    """Proposes genomes and learns from several losses at once; otherwise like Optimizer.

    optimizer = make_pareto_optimizer(OptimizerSpec(), starts=np.full((1, 8), 0.5), objectives=2)
    while optimizer.stop is None:
        genomes = optimizer.ask()
        optimizer.tell(np.array([losses(genome) for genome in genomes]), np.zeros(len(genomes)))
    """

    population: int
    """Genomes in a generation."""

    def ask(self) -> NDArray[np.float64]:
        """The next generation, (population, n) float64 in [0, 1]; a switch is on above 1/2."""
        ...

    def tell(self, losses: NDArray[np.float64], violation: NDArray[np.float64]) -> None:
        """Losses of the genomes just asked for, (population, objectives) in their order.

        Lower is better, and all of it is finite. violation: (population,), how far each breaks its
        constraints, 0 where it keeps them. A genome that keeps them is better than one that does
        not (Deb 2000). The violation of a failed candidate is above that of every other one.
        """
        ...

    @property
    def stop(self) -> str | None:
        """Why more generations cannot help, in words; None while they can.

        An optimiser does not have to watch the budget.
        """
        ...


def check_fitness(fitness: NDArray[np.float64], population: int) -> list[float]:
    """The fitness as numbers; it must be (population,) and finite."""
    assert fitness.shape == (population,), f"{fitness.shape} is not ({population},)"
    assert np.isfinite(fitness).all(), "fitness is not finite"
    return [float(value) for value in fitness]


def check_losses(
    losses: NDArray[np.float64], violation: NDArray[np.float64], population: int, objectives: int
) -> None:
    """Losses must be (population, objectives), violation (population,), and all of it finite."""
    shape = (population, objectives)
    assert losses.shape == shape, f"{losses.shape} is not {shape}"
    assert violation.shape == (population,), f"{violation.shape} is not ({population},)"
    assert np.isfinite(losses).all(), "losses are not finite"
    assert np.isfinite(violation).all(), "violation is not finite"
    assert (violation >= 0.0).all(), "violation is below 0"


def inactive_genes(
    active: NDArray[np.bool_] | None, population: int, n: int
) -> NDArray[np.bool_] | None:
    """Which genes had no effect in which genome, (population, n); None where all of them had."""
    if active is None:
        return None
    assert active.shape == (population, n), f"{active.shape} is not ({population}, {n})"
    assert active.dtype == np.bool_, f"active is {active.dtype}, not bool"
    return None if active.all() else ~active


def neutral_shift(
    steps: NDArray[np.float64], inactive: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What genes without effect add to a weighted recombination, (n,).

    steps: (mu, n) float64, from the mean to the selected genomes, best first; inactive: (mu, n);
    weights: (mu,) float64.
    """
    shift: NDArray[np.float64] = weights @ np.where(inactive, steps, 0.0)
    return shift
