"""Search spaces: the unit box and what its points merge.

space = build_space("per_layer_task_arithmetic", base=..., sources=..., structure=..., ...)
recipe = space.decode(space.start)
"""

from evomerge.space.base import Gene, SearchSpace
from evomerge.space.building import build_space
from evomerge.space.data_flow import DataFlowSpace
from evomerge.space.names import short_names
from evomerge.space.reading import read_space

__all__ = ["DataFlowSpace", "Gene", "SearchSpace", "build_space", "read_space", "short_names"]
