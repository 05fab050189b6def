"""The optimisers by the name that a job gives them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from evomerge.job import Algorithm, OptimizerSpec
from evomerge.optimize.base import Optimizer, default_population
from evomerge.optimize.cat_cma_es import CatCmaEs
from evomerge.optimize.cma_es import CmaEs
from evomerge.optimize.lra_cma_es import LraCmaEs
from evomerge.optimize.random_search import RandomSearch
from evomerge.optimize.tpe import Tpe

OPTIMIZERS: dict[Algorithm, Callable[..., Optimizer]] = {
    "cma_es": CmaEs,
    "cma_es_threshold": partial(CmaEs, integers=False),
    "cat_cma_es": CatCmaEs,
    "lra_cma_es": LraCmaEs,
    "tpe": Tpe,
    "random": RandomSearch,
}


MOST_CONTINUOUS = 500
"""Genes beside the switches above which CatCMA's full covariance takes seconds a generation."""


def choose_algorithm(spec: OptimizerSpec, binary: NDArray[np.bool_] | None = None) -> Algorithm:
    """The algorithm of a job; `auto` is the one that measured best for genes like these.

    binary: (n,) bool, which genes are switches; None where none is. benchmarks/RESULTS.md has the
    measurements.
    """
    if spec.algorithm != "auto":
        return spec.algorithm
    if binary is None or not binary.any() or (~binary).sum() > MOST_CONTINUOUS:
        return "cma_es"
    return "cat_cma_es"


def make_optimizer(
    spec: OptimizerSpec,
    *,
    start: NDArray[np.float64],
    binary: NDArray[np.bool_] | None = None,
) -> Optimizer:
    """The optimiser of a job, ready to be asked.

    start: (n,) float64 in [0, 1], where the search distribution is centred; TPE and random search,
    which have none, take only n and the switches from it. binary: (n,) bool, which genes are
    switches, on above 1/2; None where none is.
    """
    assert start.ndim == 1 and start.size > 0, f"start has shape {start.shape}"
    assert ((start >= 0.0) & (start <= 1.0)).all(), "start is outside the unit box"
    switches = np.zeros(start.size, dtype=np.bool_) if binary is None else binary
    assert switches.shape == start.shape and switches.dtype == np.bool_, "binary is not (n,) bool"
    population = default_population(start.size) if spec.population == "auto" else spec.population
    return OPTIMIZERS[choose_algorithm(spec, binary)](
        start=start.astype(np.float64),
        sigma=spec.sigma,
        population=population,
        seed=spec.seed,
        binary=switches,
    )
