"""Statistics of models on a user's text, computed once: what `evomerge calibrate` does.

`merge/statistics.py` says what a file of statistics looks like.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
