"""Models to be merged: open one by folder or hub id, say how it is built, hand out its tensors.

Only safetensors are read, and nothing is unpickled. What a model holds is learnt from the files'
headers, so opening costs milliseconds whatever the size; tensors are memory-mapped when asked for.
Nothing here knows of merging, and no architecture is known by name.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evomerge.sources.adapter import Adapter
    from evomerge.sources.checkpoint import Checkpoint
    from evomerge.sources.comparison import check_compatible, is_part, lead_of, shared_structure
    from evomerge.sources.correspondence import correspond, only_weights
    from evomerge.sources.opening import open_source
    from evomerge.sources.source import Source
    from evomerge.sources.structure import Stack, Structure

__all__ = [
    "Adapter",
    "Checkpoint",
    "Source",
    "Stack",
    "Structure",
    "check_compatible",
    "correspond",
    "is_part",
    "lead_of",
    "only_weights",
    "open_source",
    "shared_structure",
]

_PLACES = {
    "Adapter": "evomerge.sources.adapter",
    "Checkpoint": "evomerge.sources.checkpoint",
    "Source": "evomerge.sources.source",
    "Stack": "evomerge.sources.structure",
    "Structure": "evomerge.sources.structure",
    "check_compatible": "evomerge.sources.comparison",
    "correspond": "evomerge.sources.correspondence",
    "is_part": "evomerge.sources.comparison",
    "lead_of": "evomerge.sources.comparison",
    "only_weights": "evomerge.sources.correspondence",
    "open_source": "evomerge.sources.opening",
    "shared_structure": "evomerge.sources.comparison",
}
"""Where each name is; looked up when it is asked for, as some of them load the large libraries."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"{__name__} has no {name}")
    return getattr(importlib.import_module(_PLACES[name]), name)
