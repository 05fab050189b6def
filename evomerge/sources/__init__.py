"""Models to merge: opens them by folder or hub id and gives their structure and tensors.

Only safetensors files are read, and nothing is unpickled. Opening reads only the files' headers, so
it takes milliseconds for any size; tensors are memory-mapped when they are read. No architecture
needs code of its own here.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
