"""Workers: a job made ready, one candidate built and scored on one device, and their pools."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
