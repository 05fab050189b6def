"""The job: what a user asks for, as one validated value.

The same JobSpec serves the command line, Python callers and services. It checks everything that
can be known without opening a checkpoint or a task; it does not know what those hold.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
