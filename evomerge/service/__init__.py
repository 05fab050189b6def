"""The service: jobs that a team submits, watches, resumes and exports over HTTP."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
