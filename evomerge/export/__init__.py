"""Export: recipe, checkpoint or adapter, card and manifest in one folder, and its verification."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
