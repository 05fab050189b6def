"""Search spaces: each point of the unit box is a genome, and each genome gives a recipe.

space = build_space("per_layer_task_arithmetic", base=..., sources=..., structure=..., ...)
recipe = space.decode(space.start)
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
