"""Models to be merged: open one by folder or hub id, say how it is built, hand out its tensors.

Only safetensors are read, and nothing is unpickled. What a model holds is learnt from the files'
headers, so opening costs milliseconds whatever the size; tensors are memory-mapped when asked for.
Nothing here knows of merging, and no architecture is known by name.
"""

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
