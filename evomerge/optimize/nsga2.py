"""NSGA-II by Optuna: a population that keeps its front and spreads along it.

Deb et al. 2002; blend crossover: Eshelman & Schaffer 1993. Its Optuna study is in memory; it is not
the record of a search.
"""

from __future__ import annotations

import warnings

import numpy as np
import optuna
from numpy.typing import NDArray

from evomerge.optimize.base import check_losses
from evomerge.optimize.start import first_population
from evomerge.optimize.tpe import quiet_study

_POSITION = optuna.distributions.FloatDistribution(0.0, 1.0)
_SWITCH = optuna.distributions.CategoricalDistribution([0.0, 1.0])


class Nsga2:
    """Optuna's NSGAIISampler behind the ParetoOptimizer contract.

    A generation is asked as a batch, so its genomes have parents from earlier generations only. The
    first population is at the starts and around them. A switch is a category of two values, taken
    from either parent. Constraints are kept by constrained domination. A gene without effect is
    inherited like any other: selection does not act on it, so it only drifts.
    """

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
        self._genes: dict[str, optuna.distributions.BaseDistribution] = {
            f"gene{i}": _SWITCH if switch else _POSITION for i, switch in enumerate(binary)
        }
        self._study = quiet_study(_sampler(population, seed), objectives=objectives)
        for genome in first_population(
            starts,
            population=population,
            sigma=sigma,
            binary=binary,
            generator=np.random.default_rng(seed),
        ):
            self._study.enqueue_trial(dict(zip(self._genes, genome.tolist(), strict=True)))
        self._asked: list[optuna.Trial] = []

    def ask(self) -> NDArray[np.float64]:
        """The next generation, (population, n) float64 in [0, 1], its switches at 0 or 1."""
        assert not self._asked, "tell the losses of the last generation first"
        self._asked = [self._study.ask(self._genes) for _ in range(self.population)]
        genomes = [[trial.params[gene] for gene in self._genes] for trial in self._asked]
        return np.array(genomes, dtype=np.float64)

    def tell(self, losses: NDArray[np.float64], violation: NDArray[np.float64]) -> None:
        """Losses of the genomes just asked for, (population, objectives); violation: see base."""
        check_losses(losses, violation, self.population, self._objectives)
        assert self._asked, "ask first"
        for trial, row, broken in zip(
            self._asked, losses.tolist(), violation.tolist(), strict=True
        ):
            trial.set_constraint("violation", broken)
            self._study.tell(trial, row)
        self._asked = []


def _sampler(population: int, seed: int) -> optuna.samplers.NSGAIISampler:
    """Small mutations and children between their parents: a gene drawn anew breaks most merges."""
    with warnings.catch_warnings():
        # Optuna may change these operators with its version, which is pinned.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.NSGAIISampler(
            population_size=population,
            crossover=optuna.samplers.nsgaii.BLXAlphaCrossover(),
            mutation=optuna.samplers.nsgaii.PolynomialMutation(),
            seed=seed,
        )
