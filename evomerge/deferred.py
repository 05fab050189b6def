"""Libraries that are imported when they are first used.

To import torch takes longer than to merge a small model. Modules that need it for some of their
work only name it by `deferred`; for type checkers they import it.
"""

from __future__ import annotations

import importlib
from typing import Any


class _Deferred:
    """Stands for a module, and imports it when one of its names is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)


def deferred(name: str) -> Any:
    """The module of that name, imported at its first use."""
    return _Deferred(name)
