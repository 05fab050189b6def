"""Which of a space's models a reference means: a local folder may be written in many ways."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def canonical(reference: str) -> str:
    """A local folder as its absolute path; anything else as it is."""
    return str(Path(reference).resolve()) if os.path.isdir(reference) else reference


def own_reference(reference: str, known: Sequence[str]) -> str:
    """The known reference of the same model; the reference itself where there is none."""
    if reference in known:
        return reference
    own = {canonical(name): name for name in known}
    return own.get(canonical(reference), reference)
