"""Search spaces: the unit box and what its points merge.

space = build_space("per_layer_task_arithmetic", base=..., sources=..., structure=..., ...)
recipe = space.decode(space.start)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evomerge.space.base import Gene, SearchSpace, switches_of
    from evomerge.space.building import build_space
    from evomerge.space.components import component_of
    from evomerge.space.data_flow import DataFlowSpace
    from evomerge.space.names import short_names
    from evomerge.space.reading import read_space

__all__ = [
    "DataFlowSpace",
    "Gene",
    "SearchSpace",
    "build_space",
    "component_of",
    "read_space",
    "short_names",
    "switches_of",
]

_PLACES = {
    "DataFlowSpace": "evomerge.space.data_flow",
    "Gene": "evomerge.space.base",
    "SearchSpace": "evomerge.space.base",
    "build_space": "evomerge.space.building",
    "component_of": "evomerge.space.components",
    "read_space": "evomerge.space.reading",
    "short_names": "evomerge.space.names",
    "switches_of": "evomerge.space.base",
}
"""Where each name is; looked up when it is asked for, as some of them load the large libraries."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"{__name__} has no {name}")
    return getattr(importlib.import_module(_PLACES[name]), name)
