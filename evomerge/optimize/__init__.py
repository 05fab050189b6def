"""Ask/tell optimisers over the unit box, and the default merges that they must beat."""

from evomerge.optimize.base import Optimizer, ParetoOptimizer, default_population
from evomerge.optimize.registry import (
    choose_algorithm,
    choose_population,
    make_optimizer,
    make_pareto_optimizer,
)

__all__ = [
    "Optimizer",
    "ParetoOptimizer",
    "choose_algorithm",
    "choose_population",
    "default_population",
    "make_optimizer",
    "make_pareto_optimizer",
]
