"""The search: its loop, its record kept up to date, and all that it is made of."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
