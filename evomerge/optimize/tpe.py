"""The tree-structured Parzen estimator, by Optuna.

Bergstra et al. 2011; Watanabe 2023 (arXiv 2304.11127). Its Optuna study is in memory; it is not the
record of a search.
"""

from __future__ import annotations

import numpy as np
import optuna
from numpy.typing import NDArray

from evomerge.optimize.base import check_fitness, inactive_genes
from evomerge.optimize.random_search import RandomSearch

_POSITION = optuna.distributions.FloatDistribution(0.0, 1.0)
_SWITCH = optuna.distributions.CategoricalDistribution([0.0, 1.0])


class Tpe:
    """Optuna's TPESampler behind the Optimizer contract.

    A generation is asked as a batch: members that have no score yet count as bad ones (Optuna's
    constant liar), which keeps them apart. There is no distribution to centre or to scale, so sigma
    is not used. A switch is a category of two values. Where there are switches, the first
    generation is random search's, around the start, because no model works with the routes that
    fair coins give. A gene without effect is told as a parameter that the trial did not have.
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
        self._genes: dict[str, optuna.distributions.BaseDistribution] = {
            f"gene{i}": _SWITCH if switch else _POSITION for i, switch in enumerate(binary)
        }
        self._study = quiet_study(optuna.samplers.TPESampler(seed=seed, constant_liar=True))
        if binary.any():
            first = RandomSearch(
                start=start, sigma=sigma, population=population, seed=seed, binary=binary
            )
            for genome in first.ask():
                self._study.enqueue_trial(dict(zip(self._genes, genome.tolist(), strict=True)))
        self._asked: list[optuna.Trial] = []

    def ask(self) -> NDArray[np.float64]:
        """The next generation, (population, n) float64 in [0, 1], its switches at 0 or 1."""
        assert not self._asked, "tell the fitness of the last generation first"
        self._asked = [self._study.ask(self._genes) for _ in range(self.population)]
        genomes = [[trial.params[gene] for gene in self._genes] for trial in self._asked]
        return np.array(genomes, dtype=np.float64)

    def tell(self, fitness: NDArray[np.float64], active: NDArray[np.bool_] | None = None) -> None:
        """Fitness of the genomes just asked for, (population,); active: (population, n)."""
        values = check_fitness(fitness, self.population)
        inactive = inactive_genes(active, self.population, len(self._genes))
        assert self._asked, "ask first"
        for place, (trial, value) in enumerate(zip(self._asked, values, strict=True)):
            if inactive is None or not inactive[place].any():
                self._study.tell(trial, value)
            else:
                self._tell_without(trial, value, inactive[place])
        self._asked = []

    def _tell_without(self, trial: optuna.Trial, value: float, inactive: NDArray[np.bool_]) -> None:
        """Replace this trial by one that does not have the genes without effect."""
        effective = [gene for gene, idle in zip(self._genes, inactive, strict=True) if not idle]
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        self._study.add_trial(
            optuna.trial.create_trial(
                params={gene: trial.params[gene] for gene in effective},
                distributions={gene: self._genes[gene] for gene in effective},
                value=value,
            )
        )


def quiet_study(sampler: optuna.samplers.BaseSampler, *, objectives: int = 1) -> optuna.Study:
    """A study in memory. Optuna's line on a new study is hidden: it is not about the search."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(sampler=sampler, directions=["minimize"] * objectives)
    finally:
        optuna.logging.set_verbosity(before)
