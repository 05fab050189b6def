"""How stock tools load an export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evomerge.export import Command


def export_commands(folder: Path, called: str) -> tuple[Command, ...]:
    """The commands that load an exported folder with stock tools, for its kind of model.

    Args:
        folder: The folder, which `export` or `merge` wrote.
        called: What it is called where the commands run.

    Returns:
        A command for each tool that takes it; none where its card does not say what it is.
    """
    from evomerge.export import commands_of

    return commands_of(folder, called)
