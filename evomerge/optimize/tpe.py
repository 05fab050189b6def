"""The tree-structured Parzen estimator, by Optuna.

Bergstra et al. 2011; Watanabe 2023 (arXiv 2304.11127). This module knows the unit box only, and
its Optuna study lives in memory: it is not the record of a search.
"""

from __future__ import annotations

import numpy as np
import optuna
from numpy.typing import NDArray

from evomerge.optimize.base import check_fitness


class Tpe:
    """Optuna's TPESampler behind the Optimizer contract.

    A generation is asked as a batch: members that have no score yet count as bad ones (Optuna's
    constant liar), which keeps them apart. There is no distribution to centre or to scale: start
    gives only n, and sigma is not used.
    """

    mean: None = None
    stop: None = None

    def __init__(
        self, *, start: NDArray[np.float64], sigma: float, population: int, seed: int
    ) -> None:
        self.population = population
        self._genes: dict[str, optuna.distributions.BaseDistribution] = {
            f"gene{i}": optuna.distributions.FloatDistribution(0.0, 1.0) for i in range(start.size)
        }
        self._study = _quiet_study(optuna.samplers.TPESampler(seed=seed, constant_liar=True))
        self._asked: list[optuna.Trial] = []

    def ask(self) -> NDArray[np.float64]:
        """The next generation, (population, n) float64 in [0, 1]."""
        assert not self._asked, "tell the fitness of the last generation first"
        self._asked = [self._study.ask(self._genes) for _ in range(self.population)]
        genomes = [[trial.params[gene] for gene in self._genes] for trial in self._asked]
        return np.array(genomes, dtype=np.float64)

    def tell(self, fitness: NDArray[np.float64]) -> None:
        """Fitness of the genomes just asked for, (population,), lower is better."""
        values = check_fitness(fitness, self.population)
        assert self._asked, "ask first"
        for trial, value in zip(self._asked, values, strict=True):
            self._study.tell(trial, value)
        self._asked = []


def _quiet_study(sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    """A study in memory; Optuna announces each new one, which would read as the search's own."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(sampler=sampler)
    finally:
        optuna.logging.set_verbosity(before)
