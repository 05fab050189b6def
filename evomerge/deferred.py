"""Libraries that are imported when they are first used.

To import torch takes longer than to merge a small model. Modules that need it for some of their
work only import it from here; for type checkers it is the library itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


class _Deferred:
    """Stands for a module, and imports it when one of its names is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)


if TYPE_CHECKING:
    import torch as torch
else:
    torch = _Deferred("torch")
