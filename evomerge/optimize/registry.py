"""The optimisers by the name that a job gives them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from evomerge.job import Algorithm, OptimizerSpec, ParetoAlgorithm, SingleAlgorithm
from evomerge.optimize.base import MANY_GENES, Optimizer, ParetoOptimizer, default_population
from evomerge.optimize.cat_cma_es import CatCmaEs
from evomerge.optimize.cma_es import CmaEs
from evomerge.optimize.como_cat_cma_es import LEAST_POPULATION, OBJECTIVES, ComoCatCmaEs
from evomerge.optimize.lra_cma_es import LraCmaEs
from evomerge.optimize.nsga2 import Nsga2
from evomerge.optimize.random_search import ParetoRandomSearch, RandomSearch
from evomerge.optimize.tpe import Tpe

OPTIMIZERS: dict[SingleAlgorithm, Callable[..., Optimizer]] = {
    "cma_es": CmaEs,
    "cma_es_threshold": partial(CmaEs, integers=False),
    "cat_cma_es": CatCmaEs,
    "lra_cma_es": LraCmaEs,
    "tpe": Tpe,
    "random": RandomSearch,
}

PARETO_OPTIMIZERS: dict[ParetoAlgorithm, Callable[..., ParetoOptimizer]] = {
    "nsga2": Nsga2,
    "como_cat_cma_es": ComoCatCmaEs,
    "random": ParetoRandomSearch,
}

MOST_CONTINUOUS = 500
"""Genes beside the switches above which a full covariance of cmaes' takes seconds a generation."""


def choose_algorithm(
    spec: OptimizerSpec, binary: NDArray[np.bool_] | None = None, *, objectives: int = 1
) -> Algorithm:
    """The algorithm of a job; `auto` is the one that measured best for genes like these.

    binary: (n,) bool, which genes are switches; None where none is. objectives: the axes of the
    front; 1 where they are combined into one score. benchmarks/RESULTS.md has the measurements.
    """
    if objectives == 1:
        return _single_algorithm(spec, np.zeros(0, dtype=np.bool_) if binary is None else binary)
    assert binary is not None, "how many genes there are is not known"
    return _pareto_algorithm(spec, binary, objectives)


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
    switches = _switches(binary, start.size)
    return OPTIMIZERS[_single_algorithm(spec, switches)](
        start=start.astype(np.float64),
        sigma=spec.sigma,
        population=choose_population(spec, switches),
        seed=spec.seed,
        binary=switches,
    )


def make_pareto_optimizer(
    spec: OptimizerSpec,
    *,
    starts: NDArray[np.float64],
    objectives: int,
    binary: NDArray[np.bool_] | None = None,
) -> ParetoOptimizer:
    """The optimiser of a job in `mode: pareto`, ready to be asked.

    starts: (k, n) float64 in [0, 1], where the search begins, the most important first. objectives:
    columns of the losses that it will be told. binary: as in `make_optimizer`.
    """
    assert starts.ndim == 2 and starts.size > 0, f"starts have shape {starts.shape}"
    assert ((starts >= 0.0) & (starts <= 1.0)).all(), "a start is outside the unit box"
    assert objectives >= 2, f"{objectives} objectives"
    n = starts.shape[1]
    switches = _switches(binary, n)
    algorithm = _pareto_algorithm(spec, switches, objectives)
    population = _population(spec, n)
    if algorithm == "como_cat_cma_es":  # asked for by name, over a single gene
        population = max(population, LEAST_POPULATION)
    return PARETO_OPTIMIZERS[algorithm](
        starts=starts.astype(np.float64),
        sigma=spec.sigma,
        population=population,
        seed=spec.seed,
        binary=switches,
        objectives=objectives,
    )


def _single_algorithm(spec: OptimizerSpec, binary: NDArray[np.bool_]) -> SingleAlgorithm:
    if spec.algorithm != "auto":
        assert spec.algorithm != "nsga2" and spec.algorithm != "como_cat_cma_es", spec.algorithm
        return spec.algorithm
    if (~binary).sum() > MOST_CONTINUOUS:
        return "cma_es"
    if binary.any():
        return "cat_cma_es"
    return "lra_cma_es" if binary.size >= MANY_GENES else "cma_es"


def _pareto_algorithm(
    spec: OptimizerSpec, binary: NDArray[np.bool_], objectives: int
) -> ParetoAlgorithm:
    if spec.algorithm == "nsga2" or spec.algorithm == "como_cat_cma_es":
        return spec.algorithm
    assert spec.algorithm == "auto" or spec.algorithm == "random", spec.algorithm
    if spec.algorithm == "random":
        return "random"
    fits = objectives == OBJECTIVES and _population(spec, binary.size) >= LEAST_POPULATION
    return "como_cat_cma_es" if fits and (~binary).sum() <= MOST_CONTINUOUS else "nsga2"


def choose_population(spec: OptimizerSpec, binary: NDArray[np.bool_]) -> int:
    """Genomes in a generation of a job in mode single; `auto` is what measured best.

    binary: (n,) bool, which genes are switches. pycma's CMA-ES of many coefficients takes twice the
    default number; one that adapts its learning rates to the noise needs no more.
    """
    if spec.population != "auto":
        return spec.population
    population = default_population(binary.size)
    many = binary.size >= MANY_GENES and not binary.any()
    return 2 * population if many and _single_algorithm(spec, binary) == "cma_es" else population


def _population(spec: OptimizerSpec, n: int) -> int:
    return default_population(n) if spec.population == "auto" else spec.population


def _switches(binary: NDArray[np.bool_] | None, n: int) -> NDArray[np.bool_]:
    switches = np.zeros(n, dtype=np.bool_) if binary is None else binary
    assert switches.shape == (n,) and switches.dtype == np.bool_, "binary is not (n,) bool"
    return switches
