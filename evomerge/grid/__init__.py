"""Grids: every method on every subset of some experts, with normalised scores.

Yadav et al. 2024, "What matters for model merging at scale?" (arXiv 2410.03617), for the user's own
models: what is kept of each expert's skill (held-in) and what becomes of other tasks (held-out), by
method and number of experts. Nothing here knows how an outcome is shown.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evomerge.grid.cells import Cell, cells_of, label_of
    from evomerge.grid.checking import Work, check_grid, work_of
    from evomerge.grid.loading import load_grid, parse_grid
    from evomerge.grid.outcome import GridOutcome, ModelOutcome, Normalised, Row
    from evomerge.grid.pinning import pin_grid
    from evomerge.grid.record import facts_of_grid, keep_grid, open_grid_study, write_recipes
    from evomerge.grid.running import GridRun
    from evomerge.grid.specification import ExpertsSpec, GridSpec, HeldInSpec, MethodSpec, TaskSpec

__all__ = [
    "Cell",
    "ExpertsSpec",
    "GridOutcome",
    "GridRun",
    "GridSpec",
    "HeldInSpec",
    "MethodSpec",
    "ModelOutcome",
    "Normalised",
    "Row",
    "TaskSpec",
    "Work",
    "cells_of",
    "check_grid",
    "facts_of_grid",
    "keep_grid",
    "label_of",
    "load_grid",
    "open_grid_study",
    "parse_grid",
    "pin_grid",
    "work_of",
    "write_recipes",
]

_PLACES = {
    "Cell": "evomerge.grid.cells",
    "ExpertsSpec": "evomerge.grid.specification",
    "GridOutcome": "evomerge.grid.outcome",
    "GridRun": "evomerge.grid.running",
    "GridSpec": "evomerge.grid.specification",
    "HeldInSpec": "evomerge.grid.specification",
    "MethodSpec": "evomerge.grid.specification",
    "ModelOutcome": "evomerge.grid.outcome",
    "Normalised": "evomerge.grid.outcome",
    "Row": "evomerge.grid.outcome",
    "TaskSpec": "evomerge.grid.specification",
    "Work": "evomerge.grid.checking",
    "cells_of": "evomerge.grid.cells",
    "check_grid": "evomerge.grid.checking",
    "facts_of_grid": "evomerge.grid.record",
    "keep_grid": "evomerge.grid.record",
    "label_of": "evomerge.grid.cells",
    "load_grid": "evomerge.grid.loading",
    "open_grid_study": "evomerge.grid.record",
    "parse_grid": "evomerge.grid.loading",
    "pin_grid": "evomerge.grid.pinning",
    "work_of": "evomerge.grid.checking",
    "write_recipes": "evomerge.grid.record",
}
"""Where each name is; looked up when it is asked for, as some of them load the large libraries."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"{__name__} has no {name}")
    return getattr(importlib.import_module(_PLACES[name]), name)
