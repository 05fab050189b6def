"""Conditions on answers: their language, their form, their length, said as plain settings.

A condition is a value that says of a text whether it is kept. Task files use conditions as metrics
and as filters (`metrics.py`, `filters.py`).
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
