"""CMA-ES that adapts its own learning rates to the noise, by cmaes.

Nomura, Akimoto & Ono 2023 (arXiv 2304.03473).
"""

from __future__ import annotations

import cmaes
import numpy as np
from numpy.typing import NDArray

from evomerge.optimize.base import check_fitness, inactive_genes, neutral_shift
from evomerge.optimize.start import place

RESAMPLINGS = 10
"""Draws for a genome inside the box before it is clipped; each costs O(n^3) in cmaes."""

SMALLEST_SPREAD = 1e-11
"""Spread of a population below which all its genomes are the same merge."""


class LraCmaEs:
    """cmaes' CMA with `lr_adapt` behind the Optimizer contract.

    Samples outside the box are drawn again, and clipped to it after `RESAMPLINGS` misses. The next
    generation is drawn as soon as the last one is told, so that a numerical failure is known before
    `ask`. A switch is a coordinate that is on above 1/2. Genomes in which a gene had no effect do
    not move the gene's mean.
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
        self._strategy = cmaes.CMA(
            mean=place(start, binary, sigma),
            sigma=sigma,
            bounds=np.tile([0.0, 1.0], (start.size, 1)),
            n_max_resampling=RESAMPLINGS,
            seed=seed,
            population_size=population,
            lr_adapt=True,
        )
        self._stop: str | None = None
        self._asked = False
        self._next = self._draw()

    def ask(self) -> NDArray[np.float64]:
        """The next generation, (population, n) float64 in [0, 1]."""
        assert not self._asked, "tell the fitness of the last generation first"
        assert self._stop is None, self._stop
        self._asked = True
        return self._next.copy()

    def tell(self, fitness: NDArray[np.float64], active: NDArray[np.bool_] | None = None) -> None:
        """Fitness of the genomes just asked for, (population,); active: (population, n)."""
        values = check_fitness(fitness, self.population)
        inactive = inactive_genes(active, *self._next.shape)
        assert self._asked, "ask first"
        self._asked = False
        with np.errstate(all="ignore"):  # the next draw finds numerical failures
            before = self._strategy.mean.copy()
            self._strategy.tell(list(zip(self._next, values, strict=True)))
            if inactive is not None:
                self._take_back(before, np.argsort(values, kind="stable"), inactive)
            self._look_ahead()

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of the distribution, (n,) in [0, 1]."""
        mean: NDArray[np.float64] = np.clip(self._strategy.mean, 0.0, 1.0)
        return mean

    @property
    def stop(self) -> str | None:
        """A numerical reason to end, in words."""
        return self._stop

    def _take_back(
        self,
        before: NDArray[np.float64],
        order: NDArray[np.intp],
        inactive: NDArray[np.bool_],
    ) -> None:
        """Undo the mean's shift by genes without effect; in the spread they are only noise."""
        strategy = self._strategy
        best = order[: strategy._mu]
        shift = neutral_shift(
            self._next[best] - before, inactive[best], strategy._weights[: strategy._mu]
        )
        strategy._mean -= strategy._eta_mean * strategy._cm * shift

    def _look_ahead(self) -> None:
        try:
            drawn = self._draw()
        except np.linalg.LinAlgError:
            drawn = np.full_like(self._next, np.nan)
        if not np.isfinite(drawn).all():
            self._stop = "the covariance matrix is numerically singular"
        elif np.ptp(drawn, axis=0).max() < SMALLEST_SPREAD:
            self._stop = "the step size is below 1e-11, so all candidates are the same merge"
        else:
            self._next = drawn

    def _draw(self) -> NDArray[np.float64]:
        return np.array([self._strategy.ask() for _ in range(self.population)], dtype=np.float64)
