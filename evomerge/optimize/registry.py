"""The optimisers by the name that a job gives them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from evomerge.job import Algorithm, OptimizerSpec
from evomerge.optimize.base import Optimizer, default_population
from evomerge.optimize.cma_es import CmaEs
from evomerge.optimize.lra_cma_es import LraCmaEs
from evomerge.optimize.random_search import RandomSearch
from evomerge.optimize.tpe import Tpe

OPTIMIZERS: dict[Algorithm, Callable[..., Optimizer]] = {
    "cma_es": CmaEs,
    "lra_cma_es": LraCmaEs,
    "tpe": Tpe,
    "random": RandomSearch,
}


def make_optimizer(spec: OptimizerSpec, *, start: NDArray[np.float64]) -> Optimizer:
    """The optimiser of a job, ready to be asked.

    start: (n,) float64 in [0, 1], where the search distribution is centred; TPE and random search,
    which have none, take only n from it.
    """
    assert start.ndim == 1 and start.size > 0, f"start has shape {start.shape}"
    assert ((start >= 0.0) & (start <= 1.0)).all(), "start is outside the unit box"
    population = default_population(start.size) if spec.population == "auto" else spec.population
    algorithm: Algorithm = "cma_es" if spec.algorithm == "auto" else spec.algorithm
    return OPTIMIZERS[algorithm](
        start=start.astype(np.float64), sigma=spec.sigma, population=population, seed=spec.seed
    )
