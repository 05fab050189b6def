"""Merge methods and the engine that executes recipes with them, one tensor at a time."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
