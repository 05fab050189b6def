"""The proposer of genomes: an optimiser that starts where the baselines scored well.

The interface is the same for one objective and for several: a proposer takes the trials of a
generation, and gives its optimiser either their fitness or their losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluate import front_order, fronts
from evomerge.optimize import choose_algorithm, make_optimizer, make_pareto_optimizer
from evomerge.search.baselines import model_labels, only
from evomerge.search.ledger import Ledger
from evomerge.space import switches_of
from evomerge.study import ALGORITHMS, Trial
from evomerge.workers import PreparedJob


class Proposer(Protocol):
    """Proposes genomes and learns from their trials; `ask` and `tell` strictly take turns."""

    @property
    def population(self) -> int:
        """Genomes in a generation."""
        ...

    def ask(self) -> NDArray[np.float64]:
        """The next generation, (population, n) float64 in [0, 1]."""
        ...

    def tell(
        self,
        trials: Sequence[Trial],
        fitness: NDArray[np.float64],
        active: NDArray[np.bool_],
    ) -> None:
        """Trials of the genomes just asked for, in their order, with their fitness (population,).

        active: (population, n), which genes had an effect in which genome.
        """
        ...

    @property
    def mean(self) -> NDArray[np.float64] | None:
        """Mean of the search distribution, (n,) in [0, 1]; None where there is none, or several."""
        ...

    @property
    def stop(self) -> str | None:
        """Why more generations cannot help, in words; None while they can."""
        ...


Propose = Callable[[Ledger, Sequence[float]], Proposer]
"""Makes a proposer for the present stage; `make_proposer` is one."""


def make_proposer(ledger: Ledger, thresholds: Sequence[float]) -> Proposer:
    """The proposer of the present stage; the record keeps the name of its algorithm.

    thresholds: one for each constraint.
    """
    _keep_algorithm(ledger)
    pareto = ledger.preparation.job.mode == "pareto"
    return ParetoProposer(ledger, thresholds) if pareto else SingleProposer(ledger)


class SingleProposer:
    """Proposes by an Optimizer, which learns from the fitness."""

    def __init__(self, ledger: Ledger) -> None:
        preparation = ledger.preparation
        self._optimizer = make_optimizer(
            preparation.optimizer, start=_start(ledger), binary=switches_of(preparation.space)
        )
        self.population = self._optimizer.population

    def ask(self) -> NDArray[np.float64]:
        """See Proposer."""
        return self._optimizer.ask()

    def tell(
        self,
        trials: Sequence[Trial],
        fitness: NDArray[np.float64],
        active: NDArray[np.bool_],
    ) -> None:
        """See Proposer."""
        self._optimizer.tell(fitness, active)

    @property
    def mean(self) -> NDArray[np.float64] | None:
        """See Proposer."""
        return self._optimizer.mean

    @property
    def stop(self) -> str | None:
        """See Proposer."""
        return self._optimizer.stop


class ParetoProposer:
    """Proposes by a ParetoOptimizer, which learns from losses and violations of constraints."""

    mean: None = None

    def __init__(self, ledger: Ledger, thresholds: Sequence[float]) -> None:
        preparation = ledger.preparation
        self._objective = preparation.objective
        self._thresholds = tuple(thresholds)
        self._optimizer = make_pareto_optimizer(
            preparation.optimizer,
            starts=_starts(ledger, thresholds),
            objectives=len(self._objective.axes),
            binary=switches_of(preparation.space),
        )
        self.population = self._optimizer.population

    def ask(self) -> NDArray[np.float64]:
        """See Proposer."""
        return self._optimizer.ask()

    def tell(
        self,
        trials: Sequence[Trial],
        fitness: NDArray[np.float64],
        active: NDArray[np.bool_],
    ) -> None:
        """See Proposer."""
        means = [trial.means for trial in trials]
        self._optimizer.tell(
            self._objective.losses(means),
            self._objective.violations(means, thresholds=self._thresholds),
        )

    @property
    def stop(self) -> str | None:
        """See Proposer."""
        return self._optimizer.stop


def algorithm_of(preparation: PreparedJob) -> str:
    """The algorithm that searches the present stage."""
    switches = switches_of(preparation.space)
    return choose_algorithm(
        preparation.optimizer, switches, objectives=preparation.job.front_objectives
    )


def _keep_algorithm(ledger: Ledger) -> None:
    study, stage = ledger.study, str(ledger.preparation.stage)
    kept = study.noted(ALGORITHMS) or {}
    if stage not in kept:
        study.note(ALGORITHMS, {**kept, stage: algorithm_of(ledger.preparation)})


def _start(ledger: Ledger) -> NDArray[np.float64]:
    """Genome of the last stage's winner, or of the best baseline that the space can express.

    If there is none, the space's own start. In a space without switches a single model is passed
    over: it is a corner of the space, and from there a distribution can move to one side only.
    """
    preparation = ledger.preparation
    if preparation.winners:
        winner = only(list(preparation.winners)[-1], out_dtype=preparation.out_dtype)
        recipes = [winner.model_copy(update={"stages": dict(preparation.winners)})]
    else:
        sources = preparation.job.models.sources
        passed = () if switches_of(preparation.space).any() else model_labels(sources)
        fittest = ledger.fittest("baseline")
        recipes = [trial.recipe for trial in fittest if trial.label not in passed]
    for recipe in recipes:
        genome = preparation.space.encode(recipe)
        if genome is not None:
            return genome
    return preparation.space.start


def _starts(ledger: Ledger, thresholds: Sequence[float]) -> NDArray[np.float64]:
    """Genomes (k, n) of the front of the baselines that the space can express, its ends first.

    If there are none, the space's own start.
    """
    space, objective = ledger.preparation.space, ledger.preparation.objective
    known: dict[bytes, tuple[NDArray[np.float64], Trial]] = {}
    for trial in ledger.study.trials_of("baseline"):
        genome = space.encode(trial.recipe) if trial.score is not None else None
        if genome is not None:
            known.setdefault(genome.tobytes(), (genome, trial))
    if not known:
        return space.start[None]
    genomes = np.array([genome for genome, _ in known.values()])
    means = [trial.means for _, trial in known.values()]
    losses = objective.losses(means)
    violation = objective.violations(means, thresholds=thresholds)
    rank = fronts(losses, violation)
    order = [place for place in front_order(losses, violation) if rank[place] == 0]
    return np.asarray(genomes[order], dtype=np.float64)
