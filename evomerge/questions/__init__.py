"""A user's own questions and answers: read from a table, checked, written as an lm-eval task."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
