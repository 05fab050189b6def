"""Ask/tell optimisers over the unit box, and the default merges that they must beat."""

from evomerge.optimize.base import Optimizer, default_population
from evomerge.optimize.registry import choose_algorithm, make_optimizer

__all__ = ["Optimizer", "choose_algorithm", "default_population", "make_optimizer"]
