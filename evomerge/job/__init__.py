"""The job: the user's request, as one validated value.

The same JobSpec is used by the command line, by Python callers and by services. It checks
everything that needs no checkpoint and no task.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
