"""Uniform random search: what every optimiser must beat.

Bergstra & Bengio 2012.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evomerge.optimize.base import check_fitness, check_losses, inactive_genes
from evomerge.optimize.start import chances


class RandomSearch:
    """Genomes uniform in the unit box, behind the Optimizer contract.

    There is no distribution to centre or to scale, so sigma is not used. Switches are the start's,
    each flipped at `flip_rate`. Fair coins would give routes through half of all layers, and no
    model works with such a route.
    """

    mean: None = None
    stop: None = None

    def __init__(
        self,
        *,
        start: NDArray[np.float64],
        sigma: float,
        population: int,
        seed: int,
        binary: NDArray[np.bool_],
    ) -> None:
        self.population = population
        self._binary = binary
        self._chances = chances(start[binary])
        self._generator = np.random.default_rng(seed)

    def ask(self) -> NDArray[np.float64]:
        """The next generation, (population, n) float64 in [0, 1]."""
        genomes = self._generator.random((self.population, self._binary.size))
        genomes[:, self._binary] = genomes[:, self._binary] < self._chances
        return genomes

    def tell(self, fitness: NDArray[np.float64], active: NDArray[np.bool_] | None = None) -> None:
        """Check the fitness; nothing is learnt from it."""
        check_fitness(fitness, self.population)
        inactive_genes(active, self.population, self._binary.size)


class ParetoRandomSearch:
    """The same genomes behind the ParetoOptimizer contract; only the first start is used."""

    stop: None = None

    def __init__(
        self,
        *,
        starts: NDArray[np.float64],
        sigma: float,
        population: int,
        seed: int,
        binary: NDArray[np.bool_],
        objectives: int,
    ) -> None:
        self.population = population
        self._objectives = objectives
        self._search = RandomSearch(
            start=starts[0], sigma=sigma, population=population, seed=seed, binary=binary
        )

    def ask(self) -> NDArray[np.float64]:
        """The next generation, (population, n) float64 in [0, 1]."""
        return self._search.ask()

    def tell(self, losses: NDArray[np.float64], violation: NDArray[np.float64]) -> None:
        """Check the losses; nothing is learnt from them."""
        check_losses(losses, violation, self.population, self._objectives)
