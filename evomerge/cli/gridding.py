"""What the command line shows of a grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.cli.screen import say
from evomerge.cli.searching import say_checking
from evomerge.events import Checking, Event

if TYPE_CHECKING:
    from evomerge.grid import GridOutcome
    from evomerge.report.grid_progress import GridProgress
    from evomerge.study import Study


def show_checking(event: Event) -> None:
    """Say that what a grid names is checked."""
    if isinstance(event, Checking):
        say_checking()


def grid_screen(study: Study) -> GridProgress:
    """What shows a grid as it goes."""
    from evomerge.report.grid_progress import GridProgress

    return GridProgress(study)


def show_grid(outcome: GridOutcome, run_dir: Path) -> None:
    """Print its tables, and where they and the recipes are."""
    from evomerge.report.grid_tables import grid_lines

    for line in grid_lines(outcome):
        say(line)
    say(f"tables: {run_dir / 'grid.md'}, figures: {run_dir / 'grid.html'}")
    say(f"next: evomerge merge {run_dir / 'recipes' / 'CANDIDATE.yaml'} --out DIR")
