"""Where the ready-made files lie that ship with evomerge."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def shipped_folder(kind: Literal["search_spaces", "evals"]) -> Path:
    """The folder of ready-made files that ships with evomerge: in the wheel, or the checkout."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "_shipped" / kind
    return shipped if shipped.is_dir() else package.parent / kind
