"""An evolution strategy that adapts its own step size: (μ/μ, λ)-σSA-ES (Beyer & Schwefel 2002).

A whole optimiser in a package of its own; `pip install ./examples/own_optimizer` adds it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evomerge.optimize import Algorithm, place

LEAST_STEP = 1e-11
"""Step size below which all genomes are the same merge."""


class SelfAdaptation:
    """Each genome has a step size of its own; the better half of both gives the next mean and step.

    All that it knows follows from its arguments and from what it is told, so that a search that is
    resumed asks for the same genomes.
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
        self._mean = place(start, binary, sigma)  # (n,); flips few switches of the start
        self._sigma = sigma
        self._generator = np.random.default_rng(seed)

    def ask(self) -> NDArray[np.float64]:
        """The next generation, (population, n) float64 in [0, 1]."""
        shape = self.population, self._mean.size
        rate = 1.0 / np.sqrt(2.0 * self._mean.size)
        self._sigmas = self._sigma * np.exp(rate * self._generator.standard_normal(shape[0]))
        moved = self._mean + self._sigmas[:, None] * self._generator.standard_normal(shape)
        self._asked = 1.0 - np.abs(1.0 - np.abs(moved) % 2.0)  # reflected at the bounds
        return self._asked.copy()

    def tell(self, fitness: NDArray[np.float64], active: NDArray[np.bool_] | None = None) -> None:
        """Fitness of the genomes just asked for, (population,), lower is better.

        active: (population, n), which genes had an effect; the mean does not follow the others.
        """
        best = np.argsort(fitness, kind="stable")[: self.population // 2]
        steps = self._asked[best] - self._mean
        if active is not None:
            steps[~active[best]] = 0.0
        self._mean = self._mean + steps.mean(axis=0)
        self._sigma = min(1.0, float(np.exp(np.log(self._sigmas[best]).mean())))

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of the search distribution, (n,) in [0, 1]."""
        return self._mean.copy()

    @property
    def stop(self) -> str | None:
        """Why more generations cannot help, in words; None while they can."""
        if self._sigma < LEAST_STEP:
            return "the step size is below 1e-11, so all candidates are the same merge"
        return None


SELF_ADAPTATION = Algorithm(
    name="self_adaptation",
    citation="Beyer & Schwefel 2002",
    single=SelfAdaptation,
)
