"""Checks on the optimisers of packages: a breach of the contract is an error in one line.

evomerge's own optimisers are checked by its tests. Without the checks, genomes of a wrong shape or
outside the unit box would fail far from the cause, or never.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import JobError
from evomerge.optimize.algorithm import Algorithm, OptimizerSettings
from evomerge.optimize.base import Optimizer, ParetoOptimizer, check_fitness, check_losses
from evomerge.optimize.base import inactive_genes as check_active
from evomerge.registry import package_errors

T = TypeVar("T")


def checked_population(
    row: Algorithm, spec: OptimizerSettings, *, genes: int, switches: int
) -> int:
    """Genomes in a generation by a package's row. Raises JobError where that is no such number."""
    contract = _Contract(row.name, 0, genes)
    found = contract.call(
        "its population failed", lambda: row.population_of(spec, genes=genes, switches=switches)
    )
    if not isinstance(found, int) or found < 1:
        raise contract.broken(f"its population is {found!r}, not a whole number from 1")
    return found


class CheckedOptimizer:
    """A package's Optimizer, checked: each function raises JobError where the package's fails."""

    def __init__(
        self,
        name: str,
        make: Callable[..., Optimizer],
        given: Mapping[str, Any],
        *,
        population: int,
        genes: int,
    ) -> None:
        self.population = population
        self._contract = _Contract(name, population, genes)
        self._optimizer = self._contract.call("it cannot be made", lambda: make(**given))
        self._contract.words(lambda: self._optimizer.stop)
        self._contract.mean(lambda: self._optimizer.mean)

    def ask(self) -> NDArray[np.float64]:
        """The next generation, (population, n) float64 in [0, 1]."""
        return self._contract.genomes(self._optimizer.ask)

    def tell(self, fitness: NDArray[np.float64], active: NDArray[np.bool_] | None = None) -> None:
        """Fitness of the genomes just asked for, (population,); active: (population, n)."""
        check_fitness(fitness, self.population)
        check_active(active, self.population, self._contract.genes)
        own = None if active is None else active.copy()
        self._contract.call("its tell failed", lambda: self._optimizer.tell(fitness.copy(), own))

    @property
    def mean(self) -> NDArray[np.float64] | None:
        """Mean of the search distribution, (n,) in [0, 1]; None where there is no distribution."""
        return self._contract.mean(lambda: self._optimizer.mean)

    @property
    def stop(self) -> str | None:
        """Why more generations cannot help, in words."""
        return self._contract.words(lambda: self._optimizer.stop)


class CheckedParetoOptimizer:
    """A package's ParetoOptimizer, checked; otherwise like CheckedOptimizer."""

    def __init__(
        self,
        name: str,
        make: Callable[..., ParetoOptimizer],
        given: Mapping[str, Any],
        *,
        population: int,
        genes: int,
        objectives: int,
    ) -> None:
        self.population = population
        self._objectives = objectives
        self._contract = _Contract(name, population, genes)
        self._optimizer = self._contract.call("it cannot be made", lambda: make(**given))
        self._contract.words(lambda: self._optimizer.stop)

    def ask(self) -> NDArray[np.float64]:
        """The next generation, (population, n) float64 in [0, 1]."""
        return self._contract.genomes(self._optimizer.ask)

    def tell(self, losses: NDArray[np.float64], violation: NDArray[np.float64]) -> None:
        """Losses of the genomes just asked for, (population, objectives); violation: see base."""
        check_losses(losses, violation, self.population, self._objectives)
        copies = losses.copy(), violation.copy()
        self._contract.call("its tell failed", lambda: self._optimizer.tell(*copies))

    @property
    def stop(self) -> str | None:
        """Why more generations cannot help, in words."""
        return self._contract.words(lambda: self._optimizer.stop)


class _Contract:
    """The checks on the optimiser of a name, for a number of genes."""

    def __init__(self, name: str, population: int, genes: int) -> None:
        self.genes = genes
        self._name = name
        self._population = population

    def call(self, failed: str, function: Callable[[], T]) -> T:
        """The result of a call. Raises JobError where it fails, unless the machine ran short."""
        with package_errors(lambda raised: self.broken(f"{failed} ({raised})")):
            return function()

    def genomes(self, ask: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        """A checked copy of a generation, (population, n) float64 in [0, 1]."""
        shape = self._population, self.genes
        genomes = self._numbers("its ask failed", ask)
        if genomes.shape != shape:
            raise self.broken(
                f"it asked for genomes of shape {genomes.shape}, not {shape}: (population, genes)"
            )
        self._check_box(genomes, "it asked for a genome with")
        return genomes

    def mean(self, read: Callable[[], NDArray[np.float64] | None]) -> NDArray[np.float64] | None:
        """A checked copy of the mean, (n,) float64 in [0, 1]; None where there is none."""
        found = self.call("its mean failed", read)
        if found is None:
            return None
        mean = self._numbers("its mean failed", lambda: found)
        if mean.shape != (self.genes,):
            raise self.broken(f"its mean has shape {mean.shape}, not {(self.genes,)}: (genes,)")
        self._check_box(mean, "its mean has")
        return mean

    def words(self, read: Callable[[], str | None]) -> str | None:
        """Why it stops; None where it does not."""
        stop = self.call("its stop failed", read)
        if stop is not None and not isinstance(stop, str):
            raise self.broken(f"its stop is of type {type(stop).__name__}, not text or None")
        return stop

    def _numbers(self, failed: str, read: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        return self.call(failed, lambda: np.array(read(), dtype=np.float64))

    def _check_box(self, values: NDArray[np.float64], subject: str) -> None:
        outside = values[~((values >= 0.0) & (values <= 1.0))]  # NaN is on neither side
        if outside.size:
            raise self.broken(f"{subject} the gene {outside[0]:g}, outside [0, 1]")

    def broken(self, problem: str) -> JobError:
        """The error that reports a breach of the contract."""
        return JobError(
            f"optimizer.algorithm: {self._name}: {problem}; mend the package that offers it, or "
            "write auto"
        )
