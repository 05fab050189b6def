from .base import Optimizer as Optimizer
from .base import ParetoOptimizer as ParetoOptimizer
from .base import default_population as default_population
from .registry import choose_algorithm as choose_algorithm
from .registry import choose_population as choose_population
from .registry import make_optimizer as make_optimizer
from .registry import make_pareto_optimizer as make_pareto_optimizer
