"""What a user sees of a search: its progress in the terminal, its status, and the HTML report."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
