"""Scoring: tasks built once, engines that answer them, splits, objectives and intervals."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
