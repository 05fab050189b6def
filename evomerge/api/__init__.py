"""The functions that a user of the library calls; the command line calls them too."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
