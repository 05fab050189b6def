"""A service in this process, and a client that reaches it without a network."""

from tests.service.http.conftest import house, process, template

__all__ = ["house", "process", "template"]
