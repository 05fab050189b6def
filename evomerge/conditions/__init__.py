"""Conditions on the language, form and length of answers, given as plain settings.

A condition checks whether a text keeps it. Task files use conditions as metrics and as filters
(`metrics.py`, `filters.py`).
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
