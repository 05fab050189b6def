"""Models to be merged: open one by folder or hub id, say how it is built, hand out its tensors.

Only safetensors are read, and nothing is unpickled. What a model holds is learnt from the files'
headers, so opening costs milliseconds whatever the size; tensors are memory-mapped when asked for.
Nothing here knows of merging, and no architecture is known by name.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
