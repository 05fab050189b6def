"""Which of a space's models a reference means: a local folder may be written in many ways."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def canonical(reference: str) -> str:
    """A local folder as its absolute path; anything else as it is."""
    path = Path(reference)
    return str(path.resolve()) if path.is_dir() else reference


def own_reference(reference: str, known: Sequence[str]) -> str:
    """The known reference of the same model; the reference itself where there is none."""
    if reference in known:
        return reference
    own = {canonical(name): name for name in known}
    return own.get(canonical(reference), reference)
