"""Workers: they prepare a job, build and score candidates on a device, and form pools."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
