"""CMA-ES for the continuous genes, a probability for each switch, by cmaes.

CatCMA with margin: Hamano et al. 2025 (arXiv 2504.07884).
"""

from __future__ import annotations

import warnings

import cmaes
import numpy as np
from numpy.typing import NDArray

from evomerge.optimize.base import check_fitness, inactive_genes, neutral_shift
from evomerge.optimize.start import chances

SMALLEST_SPREAD = 1e-11
"""Spread of every gene below which all genomes are the same merge."""

DAMPING = 0.5
"""Learning rate of the mean. As in `cma_es`, half averages over the noise of a generation."""


class CatCmaEs:
    """cmaes' CatCMAwM behind the Optimizer contract.

    A switch is a category of two values, drawn by its own probability. A margin at both ends keeps
    flips in about a quarter of all genomes. The other genes are normal in the box: a value outside
    is clipped to it, and its genome ranks lower by a penalty. Their covariance is full, so the cost
    of a generation grows with the cube of their number.

    Genomes in which a gene had no effect do not move the gene's mean or a switch's probability; the
    spread learns from the values drawn.
    """

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
        on = chances(start[binary])
        continuous = start.size - on.size
        self._strategy = cmaes.CatCMAwM(
            x_space=[[0.0, 1.0]] * continuous or None,
            c_space=[2] * on.size or None,
            population_size=population,
            mean=start[~binary],
            sigma=sigma,
            cov=np.eye(continuous),
            cat_param=np.stack([1.0 - on, on], axis=1),
            seed=seed,
        )
        self._strategy._cm = DAMPING
        self._asked: list[cmaes.CatCMAwM.Solution] = []

    def ask(self) -> NDArray[np.float64]:
        """The next generation, (population, n) float64 in [0, 1], its switches at 0 or 1."""
        assert not self._asked, "tell the fitness of the last generation first"
        self._asked = [self._strategy.ask() for _ in range(self.population)]
        genomes = np.empty((self.population, self._binary.size))
        for genome, solution in zip(genomes, self._asked, strict=True):
            if solution.x is not None:
                genome[~self._binary] = solution.x
            if solution.c is not None:
                genome[self._binary] = solution.c[:, 1]
        return genomes

    def tell(self, fitness: NDArray[np.float64], active: NDArray[np.bool_] | None = None) -> None:
        """Fitness of the genomes just asked for, (population,); active: (population, n)."""
        values = check_fitness(fitness, self.population)
        inactive = inactive_genes(active, self.population, self._binary.size)
        assert self._asked, "ask first"
        ranked = list(zip(self._asked, values, strict=True))
        before = self._parameters()
        self._update(ranked)
        if inactive is not None:
            place = {id(solution): place for place, solution in enumerate(self._asked)}
            order = [place[id(solution)] for solution, _ in ranked]
            self._take_back(before, order[: self.population // 2], inactive)
        self._asked = []

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of the continuous genes and probability of on of the switches, (n,) in [0, 1]."""
        mean: NDArray[np.float64] = np.clip(self._parameters(), 0.0, 1.0)
        return mean

    @property
    def stop(self) -> str | None:
        """A numerical reason to end, in words; never with switches, because they keep flipping."""
        if self._binary.any():
            return None
        spread = self._strategy._sigma * np.sqrt(np.diag(self._strategy._C).max())
        if spread < SMALLEST_SPREAD:
            return "the step size is below 1e-11, so all candidates are the same merge"
        return None

    def _parameters(self) -> NDArray[np.float64]:
        """Means and probabilities of on, (n,); a mean may be outside the box."""
        parameters = np.empty(self._binary.size)
        if not self._binary.all():
            parameters[~self._binary] = self._strategy._mean
        if self._binary.any():
            parameters[self._binary] = self._strategy._q[:, 1]
        return parameters

    def _update(self, ranked: list[tuple[cmaes.CatCMAwM.Solution, float]]) -> None:
        """Tell the strategy, which puts the list in order: best first, penalties included."""
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            # As long as every generation was a tie, penalties have no scale: they are NaN, and the
            # order is that of the fitness.
            warnings.filterwarnings("ignore", message="Mean of empty slice")
            self._strategy.tell(ranked)

    def _take_back(
        self, before: NDArray[np.float64], best: list[int], inactive: NDArray[np.bool_]
    ) -> None:
        """Undo the shift of means and probabilities by genes without effect."""
        strategy, weights = self._strategy, self._strategy._weights[: len(best)]
        idle = inactive[best]
        if not self._binary.all():
            drawn = np.stack([self._asked[place]._v_raw for place in best])
            steps = drawn - before[~self._binary]
            strategy._mean -= strategy._cm * neutral_shift(steps, idle[:, ~self._binary], weights)
        if self._binary.any():
            drawn = np.stack([self._asked[place].c[:, 1] for place in best])
            steps = drawn - before[self._binary]
            # Computed from the value before, because a margin may have cut the strategy's update.
            shift = neutral_shift(steps, ~idle[:, self._binary], weights)
            on = before[self._binary] + strategy._eps * shift
            margin = strategy._qmin
            on = np.clip(on, margin, 1.0 - margin)
            touched = idle[:, self._binary].any(axis=0)
            strategy._q[touched] = np.stack([1.0 - on, on], axis=1)[touched]
