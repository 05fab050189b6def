"""The choice of a job's optimiser: which one, its population, and the optimiser itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evomerge.optimize.algorithm import Mode, OptimizerSettings
from evomerge.optimize.base import Optimizer, ParetoOptimizer
from evomerge.optimize.contract import CheckedOptimizer, CheckedParetoOptimizer, checked_population
from evomerge.optimize.registry import ALGORITHMS, AUTO, BUILT_IN, is_package_algorithm


def choose_algorithm(
    spec: OptimizerSettings, binary: NDArray[np.bool_] | None = None, *, objectives: int = 1
) -> str:
    """The algorithm of a job; `auto` is the one that did best in measurements on such genes.

    binary: (n,) bool, which genes are switches; None where none is. objectives: the axes of the
    front; 1 where they are combined into one score. benchmarks/RESULTS.md has the measurements.
    """
    if spec.algorithm != "auto":
        return spec.algorithm
    assert objectives == 1 or binary is not None, "how many genes there are is not known"
    genes, switches = _counts(np.zeros(0, dtype=np.bool_) if binary is None else binary)
    mode: Mode = "single" if objectives == 1 else "pareto"
    *preferred, last = (BUILT_IN[name] for name in AUTO[mode])
    for row in preferred:
        for_them = objectives == 1 or row.is_for(objectives)
        if for_them and row.suits(spec, genes=genes, switches=switches):
            return row.name
    return last.name


def choose_population(
    spec: OptimizerSettings, binary: NDArray[np.bool_], *, objectives: int = 1
) -> int:
    """Genomes in a generation of a job; `auto` is the number that did best in measurements.

    binary: (n,) bool, which genes are switches. objectives: as in `choose_algorithm`.
    """
    row = ALGORITHMS[choose_algorithm(spec, binary, objectives=objectives)]
    genes, switches = _counts(binary)
    if is_package_algorithm(row.name):
        return checked_population(row, spec, genes=genes, switches=switches)
    return row.population_of(spec, genes=genes, switches=switches)


def make_optimizer(
    spec: OptimizerSettings,
    *,
    start: NDArray[np.float64],
    binary: NDArray[np.bool_] | None = None,
) -> Optimizer:
    """The optimiser of a job, ready to be asked.

    start: (n,) float64 in [0, 1], where the search distribution is centred. TPE and random search
    have no distribution; they take only n and the switches from it. binary: (n,) bool, which genes
    are switches, on above 1/2; None where none is. Raises JobError where the optimiser of a package
    cannot be made; its functions also raise JobError where they fail.
    """
    assert start.ndim == 1 and start.size > 0, f"start has shape {start.shape}"
    assert ((start >= 0.0) & (start <= 1.0)).all(), "start is outside the unit box"
    switches = _switches(binary, start.size)
    row = ALGORITHMS[choose_algorithm(spec, switches)]
    make, population = row.single, choose_population(spec, switches)
    assert make is not None, f"{row.name} is not for one score"
    arguments = {
        "start": start.astype(np.float64),
        "sigma": spec.sigma,
        "population": population,
        "seed": spec.seed,
        "binary": switches.copy(),
    }
    if is_package_algorithm(row.name):
        return CheckedOptimizer(row.name, make, arguments, population=population, genes=start.size)
    return make(**arguments)


def make_pareto_optimizer(
    spec: OptimizerSettings,
    *,
    starts: NDArray[np.float64],
    objectives: int,
    binary: NDArray[np.bool_] | None = None,
) -> ParetoOptimizer:
    """The optimiser of a job in `mode: pareto`, ready to be asked.

    starts: (k, n) float64 in [0, 1], where the search begins, the most important first. objectives:
    number of columns of the losses. binary, Raises: as in `make_optimizer`.
    """
    assert starts.ndim == 2 and starts.size > 0, f"starts have shape {starts.shape}"
    assert ((starts >= 0.0) & (starts <= 1.0)).all(), "a start is outside the unit box"
    assert objectives >= 2, f"{objectives} objectives"
    genes = starts.shape[1]
    switches = _switches(binary, genes)
    row = ALGORITHMS[choose_algorithm(spec, switches, objectives=objectives)]
    assert row.is_for(objectives), f"{row.name} is not for {objectives} objectives"
    make, population = row.pareto, choose_population(spec, switches, objectives=objectives)
    assert make is not None, f"{row.name} is not for fronts"
    arguments = {
        "starts": starts.astype(np.float64),
        "sigma": spec.sigma,
        "population": population,
        "seed": spec.seed,
        "binary": switches.copy(),
        "objectives": objectives,
    }
    if is_package_algorithm(row.name):
        return CheckedParetoOptimizer(
            row.name, make, arguments, population=population, genes=genes, objectives=objectives
        )
    return make(**arguments)


def _counts(binary: NDArray[np.bool_]) -> tuple[int, int]:
    """How many genes there are, and how many of them are switches."""
    return binary.size, int(binary.sum())


def _switches(binary: NDArray[np.bool_] | None, n: int) -> NDArray[np.bool_]:
    switches = np.zeros(n, dtype=np.bool_) if binary is None else binary
    assert switches.shape == (n,) and switches.dtype == np.bool_, "binary is not (n,) bool"
    return switches
