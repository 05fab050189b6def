"""Grids: every method on every subset of some experts, with normalised scores.

Yadav et al. 2024, "What matters for model merging at scale?" (arXiv 2410.03617), for the user's own
models: what is kept of each expert's skill (held-in) and what becomes of other tasks (held-out), by
method and number of experts.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
