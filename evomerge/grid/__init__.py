"""Grids: every method on every subset of some experts, with normalised scores.

Yadav et al. 2024, "What matters for model merging at scale?" (arXiv 2410.03617), for the user's own
models. A grid shows, by method and number of experts, how much of each expert's skill is kept
(held-in) and how scores on other tasks change (held-out).
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
