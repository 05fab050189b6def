"""Uniform random search: what every optimiser must beat.

Bergstra & Bengio 2012. This module knows the unit box only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evomerge.optimize.base import check_fitness


class RandomSearch:
    """Genomes uniform in the unit box, behind the Optimizer contract.

    There is no distribution to centre or to scale: start gives only n, and sigma is not used.
    """

    mean: None = None
    stop: None = None

    def __init__(
        self, *, start: NDArray[np.float64], sigma: float, population: int, seed: int
    ) -> None:
        self.population = population
        self._n = start.size
        self._generator = np.random.default_rng(seed)

    def ask(self) -> NDArray[np.float64]:
        """The next generation, (population, n) float64 in [0, 1]."""
        return self._generator.random((self.population, self._n))

    def tell(self, fitness: NDArray[np.float64]) -> None:
        """Nothing is learnt; the fitness is only checked."""
        check_fitness(fitness, self.population)
