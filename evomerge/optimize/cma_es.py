"""CMA-ES by pycma, set up for scores that are noisy and full of ties.

Hansen & Ostermeier 2001, Hansen 2016 (arXiv 1604.00772); diagonal covariance: Ros & Hansen 2008.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.optimize.algorithm import MANY_GENES
from evomerge.optimize.base import check_fitness, inactive_genes, neutral_shift
from evomerge.optimize.start import place

with warnings.catch_warnings():
    # cma says at import that it will not plot; nothing here plots.
    warnings.filterwarnings("ignore", message="Could not import matplotlib")
    import cma

DIAGONAL_ABOVE = 100
"""Genes above which the covariance is diagonal: a full one learns too slowly and costs O(n^2)."""

MARGIN = 0.05
"""Width beside a bound in which pycma's transform is quadratic; its slope on the bound is 0."""

_REASONS = {
    "tolx": "the step size is below 1e-11, so all candidates are the same merge",
    "tolfacupx": "the step size grew a thousandfold, so the search diverges",
    "noeffectcoord": "the step size of a gene is below the precision of its value",
    "noeffectaxis": "the step size along an axis is below the precision of the mean",
    "tolconditioncov": "the covariance matrix is numerically singular",
}
"""pycma's tests that end a search, all of numerical failure. Its tests of fitness (tolflatfitness,
tolfun and the like) do not end it, because accuracy has ties and noise."""


class CmaEs:
    """pycma's strategy behind the Optimizer contract.

    A start within `MARGIN` of a bound is moved to `MARGIN` inside: on the bound itself samples
    fold back symmetrically and the mean moves only by chance. A single gene is searched together
    with a second one without effect, because pycma does not support one dimension.

    Switches are pycma's integer variables (Marty et al. 2024, LB+IC-CMA-ES): candidates have them
    at 0 or 1, values that differ from the mean's are centred before the update, and their standard
    deviations have a lower bound. Without `integers` they are plain coordinates; a switch is on
    above 1/2.

    Genomes in which a gene had no effect do not move the gene's mean. Its spread learns from the
    values drawn, which selection among those genomes does not change. So a gene without effect does
    not move, and its spread does not collapse.
    """

    def __init__(
        self,
        *,
        start: NDArray[np.float64],
        sigma: float,
        population: int,
        seed: int,
        binary: NDArray[np.bool_],
        integers: bool = True,
    ) -> None:
        self.population = population
        self._n = start.size
        inside = np.clip(place(start, binary, sigma), MARGIN, 1.0 - MARGIN)
        if self._n == 1:
            inside = np.append(inside, 0.5)
        options = strategy_options(inside.size, population, seed)
        if integers and binary.any():
            options["integer_variables"] = np.flatnonzero(binary).tolist()
        with warnings.catch_warnings():  # the constructor adds filters of its own
            self._strategy = cma.CMAEvolutionStrategy(inside, sigma, options)
        self._asked: list[NDArray[np.float64]] = []

    def ask(self) -> NDArray[np.float64]:
        """The next generation, (population, n) float64 in [0, 1]."""
        assert not self._asked, "tell the fitness of the last generation first"
        self._asked = self._strategy.ask()
        return np.array(self._asked)[:, : self._n]

    def tell(self, fitness: NDArray[np.float64], active: NDArray[np.bool_] | None = None) -> None:
        """Fitness of the genomes just asked for, (population,); active: (population, n)."""
        values = check_fitness(fitness, self.population)
        inactive = inactive_genes(active, self.population, self._n)
        assert self._asked, "ask first"
        outside = np.random.get_state()
        self._strategy.tell(self._asked, values)
        # Assertions in pycma's integer centring draw from the global generator; values do not.
        np.random.set_state(outside)
        self._asked = []
        if inactive is not None:
            self._take_back(inactive)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of the distribution seen through the bounds' transform, (n,) in [0, 1]."""
        return np.array(self._strategy.result.xfavorite, dtype=np.float64)[: self._n]

    @property
    def stop(self) -> str | None:
        """A numerical reason to end, in words."""
        reasons = [_REASONS[reason] for reason in self._strategy.stop() if reason in _REASONS]
        return reasons[0] if reasons else None

    def _take_back(self, inactive: NDArray[np.bool_]) -> None:
        """Undo the mean's shift by genes without effect."""
        strategy, weights = self._strategy, self._strategy.sp.weights
        best = strategy.fit.idx[: weights.mu]
        steps = strategy.pop_sorted[: weights.mu] - strategy.mean_old
        shift = neutral_shift(steps[:, : self._n], inactive[best], weights.positive_weights)
        strategy.mean[: self._n] -= strategy.sp.cmean * shift


def strategy_options(n: int, population: int, seed: int) -> dict[str, Any]:
    """pycma's options for n dimensions."""
    generator = np.random.default_rng(seed)
    # Half learning rates average over the noise of a generation's items. Few genes are clearly
    # above that noise, and at half rates their spread would not shrink within a search.
    rate = 0.5 if n >= MANY_GENES else 1.0
    return {
        "popsize": population,
        "bounds": [0.0, 1.0],
        "BoundaryHandler": cma.boundary_handler.BoundTransform,
        "CMA_diagonal": n > DIAGONAL_ABOVE,
        # From 300 dimensions on, pycma would adapt by two points and use the global generator.
        "AdaptSigma": cma.sigma_adaptation.CMAAdaptSigmaCSA,
        "CMA_cmean": rate,
        "CMA_on": rate,
        # A generator of its own; with `seed: nan` pycma does not touch the global one.
        "seed": math.nan,
        "randn": lambda *shape: generator.standard_normal(shape),
        "verbose": -10,  # prints nothing, writes no log, reads no options from a signals file
    }
