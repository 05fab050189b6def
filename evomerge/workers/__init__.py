"""Workers: one candidate on one device, built and scored; and the pools that hold them."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
