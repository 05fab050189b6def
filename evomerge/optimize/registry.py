"""The optimisers by name; a new one is a row here, and a file beside this one.

A row is read long before its optimiser is made, so a row imports its file only when it makes the
optimiser. Installed packages add rows by entry points of the group `evomerge.optimizers`. An entry
point has the name of an optimiser and the place of its `Algorithm`. It is imported when a search
with that optimiser begins, and not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evomerge.errors import JobError
from evomerge.optimize.algorithm import (
    MANY_GENES,
    Algorithm,
    Mode,
    OptimizerSettings,
    default_population,
)
from evomerge.registry import Registry

if TYPE_CHECKING:
    from evomerge.optimize.base import Optimizer, ParetoOptimizer

MOST_CONTINUOUS = 500
"""With more genes than this besides switches, cmaes' full covariance takes seconds a generation."""


def _cma_es(**settings: Any) -> Optimizer:
    from evomerge.optimize.cma_es import CmaEs

    return CmaEs(**settings)


def _cma_es_threshold(**settings: Any) -> Optimizer:
    return _cma_es(**settings, integers=False)


def _cat_cma_es(**settings: Any) -> Optimizer:
    from evomerge.optimize.cat_cma_es import CatCmaEs

    return CatCmaEs(**settings)


def _lra_cma_es(**settings: Any) -> Optimizer:
    from evomerge.optimize.lra_cma_es import LraCmaEs

    return LraCmaEs(**settings)


def _tpe(**settings: Any) -> Optimizer:
    from evomerge.optimize.tpe import Tpe

    return Tpe(**settings)


def _random(**settings: Any) -> Optimizer:
    from evomerge.optimize.random_search import RandomSearch

    return RandomSearch(**settings)


def _nsga2(**settings: Any) -> ParetoOptimizer:
    from evomerge.optimize.nsga2 import Nsga2

    return Nsga2(**settings)


def _como_cat_cma_es(**settings: Any) -> ParetoOptimizer:
    from evomerge.optimize.como_cat_cma_es import ComoCatCmaEs

    return ComoCatCmaEs(**settings)


def _pareto_random(**settings: Any) -> ParetoOptimizer:
    from evomerge.optimize.random_search import ParetoRandomSearch

    return ParetoRandomSearch(**settings)


def _twice_for_many_weights(genes: int, switches: int) -> int:
    """Population for pycma's CMA-ES: twice the default number for many weights.

    An optimiser that adapts its learning rates to the noise needs no more: benchmarks/RESULTS.md.
    """
    many = genes >= MANY_GENES and switches == 0
    return default_population(genes) * (2 if many else 1)


BUILT_IN: dict[str, Algorithm] = {
    row.name: row
    for row in (
        Algorithm(
            name="cma_es",
            single=_cma_es,
            purpose="few weights, and more than 500; switches are its integer variables",
            citation="Hansen & Ostermeier 2001; Hansen 2016, arXiv:1604.00772",
            population=_twice_for_many_weights,
        ),
        Algorithm(
            name="cma_es_threshold",
            single=_cma_es_threshold,
            purpose="switches read off plain coordinates, as the paper on merging by evolution did",
            citation="Akiba et al. 2024, arXiv:2403.13187",
        ),
        Algorithm(
            name="cat_cma_es",
            single=_cat_cma_es,
            purpose="routes: a probability for each switch (CatCMA with margin)",
            citation="Hamano et al. 2025, arXiv:2504.07884",
            least_switches=1,
            most_continuous=MOST_CONTINUOUS,
        ),
        Algorithm(
            name="lra_cma_es",
            single=_lra_cma_es,
            purpose="16 to 500 weights: it adapts its learning rates to the noise",
            citation="Nomura et al. 2023, arXiv:2304.03473",
            least_genes=MANY_GENES,
            most_continuous=MOST_CONTINUOUS,
        ),
        Algorithm(
            name="tpe",
            single=_tpe,
            purpose="to compare with",
            citation="Bergstra et al. 2011; Watanabe 2023, arXiv:2304.11127",
        ),
        Algorithm(
            name="nsga2",
            pareto=_nsga2,
            purpose="fronts over three objectives or more",
            citation="Deb et al. 2002",
        ),
        Algorithm(
            name="como_cat_cma_es",
            pareto=_como_cat_cma_es,
            purpose="fronts over two objectives",
            citation="Hamano et al. 2025, arXiv:2504.07884",
            # A distribution of fewer than four has one parent and learns no covariance. One more
            # genome of a generation is the mean of the distribution before.
            least_population=5,
            objectives=2,  # cmaes ranks by a hypervolume improvement that it has for two only
            most_continuous=MOST_CONTINUOUS,
        ),
        Algorithm(
            name="random",
            single=_random,
            pareto=_pareto_random,
            purpose="what every other must beat",
            citation="Bergstra & Bengio 2012",
        ),
    )
}
"""optimizer.algorithm of a job -> the facts of evomerge's own optimiser."""

AUTO: dict[Mode, tuple[str, ...]] = {
    "single": ("cat_cma_es", "lra_cma_es", "cma_es"),
    "pareto": ("como_cat_cma_es", "nsga2"),
}
"""The choice of `auto`: the first that suits; the last suits any. benchmarks/RESULTS.md."""


def _read(found: object, name: str) -> Algorithm | None:
    if not isinstance(found, Algorithm) or found.name != name:
        return None
    return found if found.serves("single") or found.serves("pareto") else None


ALGORITHMS: Registry[Algorithm] = Registry(
    key="optimizer.algorithm",
    group="evomerge.optimizers",
    built_in=BUILT_IN,
    read=_read,
    wanted="evomerge.optimize.Algorithm of that name that makes an optimiser",
    code=lambda row: row.single or row.pareto,
    error=JobError,
)


def is_package_algorithm(name: str) -> bool:
    """Whether an installed package must offer it: evomerge has no optimiser of that name."""
    return name != "auto" and name not in BUILT_IN


def mode_problem(name: str, mode: Mode, *, where: str) -> str | None:
    """Why an optimiser is not for jobs of a mode, in one line; None where it is."""
    if name == "auto" or ALGORITHMS[name].serves(mode):
        return None
    known = [row.name for row in BUILT_IN.values() if row.serves(mode)]
    return (
        f"{where}.algorithm: {name} is not for mode: {mode}; write auto or one of "
        f"{', '.join(known)}"
    )


def limit_problem(
    settings: OptimizerSettings, mode: Mode, *, objectives: int, where: str
) -> str | None:
    """How a job exceeds the limits of its optimiser, in one line; None where it does not.

    objectives: the axes of the front in `mode: pareto`. where: the section of the job.
    """
    if settings.algorithm == "auto":
        return None
    row, instead = ALGORITHMS[settings.algorithm], AUTO[mode][-1]
    if settings.population != "auto" and settings.population < row.least_population:
        return (
            f"{where}.population: {settings.population} is below {row.least_population}, the least "
            f"for {row.name}; give more, or write {instead}"
        )
    if mode == "pareto" and not row.is_for(objectives):
        wanted = {2: "two"}.get(row.objectives or 0, str(row.objectives))
        return (
            f"{where}.algorithm: {row.name} is for {wanted} objectives, not {objectives}; write "
            f"{instead}"
        )
    return None
