"""Conversion of mergekit's files to jobs: of merges, and of mergekit-evolve's configurations."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
