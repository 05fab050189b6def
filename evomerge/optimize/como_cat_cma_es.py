"""Several CatCMA distributions that share out a front of two objectives, by cmaes.

COMO-CatCMA with margin: Hamano et al. 2025 (arXiv 2504.07884), after COMO-CMA-ES of Touré et al.
2019.
"""

from __future__ import annotations

import warnings

import cmaes
import numpy as np
from numpy.typing import NDArray

from evomerge.optimize.base import check_losses
from evomerge.optimize.cat_cma_es import DAMPING
from evomerge.optimize.start import chances, first_population

KERNELS = 3
"""Distributions; each is updated once in so many generations. Measured: benchmarks/RESULTS.md."""

BEYOND = 0.1
"""Reference point beyond the worst loss seen, in ranges (Ishibuchi et al. 2011)."""


class ComoCatCmaEs:
    """cmaes' COMOCatCMAwM behind the ParetoOptimizer contract.

    A generation is the population of one distribution and the mean of the distribution before it.
    At first more is needed: the means of all distributions, which are the first starts, and one
    population. Where that leaves a generation short, it is filled up with genomes on the lines
    between the starts. These teach nothing, but may be good.

    A candidate ranks by how much it adds to the hypervolume of the other distributions' means. A
    candidate that breaks constraints is put beyond the reference point, further for a larger
    violation.
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
        self._binary = binary
        self._worst: NDArray[np.float64] | None = None
        self._best: NDArray[np.float64] | None = None
        generator = np.random.default_rng(seed)
        opening = first_population(
            starts,
            population=KERNELS + population,
            sigma=sigma,
            binary=binary,
            generator=generator,
        )
        self._spare = list(opening[KERNELS:])
        self._strategy = cmaes.COMOCatCMAwM(
            x_space=[[0.0, 1.0]] * int((~binary).sum()) or None,
            c_space=[2] * int(binary.sum()) or None,
            kernels=[_kernel(start, sigma, population - 1, binary) for start in opening[:KERNELS]],
            seed=seed,
        )
        self._asked: list[cmaes.COMOCatCMAwM.Solution] = []

    def ask(self) -> NDArray[np.float64]:
        """The next generation, (population, n) float64 in [0, 1], its switches at 0 or 1."""
        assert not self._asked, "tell the losses of the last generation first"
        self._asked = list(self._strategy.ask_iter(self.population))
        genomes = np.empty((self.population, self._binary.size))
        for genome, solution in zip(genomes, self._asked, strict=False):
            if solution.x is not None:
                genome[~self._binary] = np.clip(solution.x, 0.0, 1.0)
            if solution.c is not None:
                genome[self._binary] = solution.c[:, 1]
        for place in range(len(self._asked), self.population):
            genomes[place] = self._spare.pop()
        return genomes

    def tell(self, losses: NDArray[np.float64], violation: NDArray[np.float64]) -> None:
        """Losses of the genomes just asked for, (population, objectives); violation: see base."""
        check_losses(losses, violation, self.population, self._objectives)
        assert self._asked, "ask first"
        reference = self._reference(losses[violation <= 0.0])
        self._strategy._fixed_ref_point = reference
        penalised = np.where((violation > 0.0)[:, None], reference + violation[:, None], losses)
        own_losses = penalised[: len(self._asked)].tolist()
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            # As long as all were ties, penalties of the box have no scale: they are NaN.
            warnings.filterwarnings("ignore", message="Mean of empty slice")
            self._strategy.tell(list(zip(self._asked, own_losses, strict=True)))
        self._asked = []

    def _reference(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """A little beyond all feasible losses so far, (2,); zeros before there are any."""
        if len(losses):
            worst, best = losses.max(axis=0), losses.min(axis=0)
            self._worst = worst if self._worst is None else np.maximum(self._worst, worst)
            self._best = best if self._best is None else np.minimum(self._best, best)
        if self._worst is None or self._best is None:
            return np.zeros(self._objectives)
        reference: NDArray[np.float64] = self._worst + BEYOND * np.maximum(
            self._worst - self._best, 1e-7
        )
        return reference


def _kernel(
    mean: NDArray[np.float64], sigma: float, population: int, binary: NDArray[np.bool_]
) -> cmaes.CatCMAwM:
    """One distribution around a start; its generator is seeded by the strategy."""
    on = chances(mean[binary])
    continuous = mean.size - on.size
    kernel = cmaes.CatCMAwM(
        x_space=[[0.0, 1.0]] * continuous or None,
        c_space=[2] * on.size or None,
        population_size=population,
        mean=mean[~binary],
        sigma=sigma,
        cov=np.eye(continuous),
        cat_param=np.stack([1.0 - on, on], axis=1),
    )
    kernel._cm = DAMPING
    return kernel
