"""Data-flow routes: layers of several models in the order in which a token passes through them.

Akiba et al. 2025 (arXiv 2403.13187), "merging in the data flow space". A route is read from a
recipe. It runs on live models without a copy of any weight, and it can be folded into a plain
checkpoint.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
