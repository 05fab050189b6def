"""Grids: every method on every subset of some experts, with normalised scores.

Yadav et al. 2024, "What matters for model merging at scale?" (arXiv 2410.03617), for the user's own
models: what is kept of each expert's skill (held-in) and what becomes of other tasks (held-out), by
method and number of experts. Nothing here knows how an outcome is shown.
"""

from evomerge.grid.cells import Cell, cells_of, label_of
from evomerge.grid.checking import Work, check_grid, work_of
from evomerge.grid.loading import load_grid, parse_grid, pin_grid
from evomerge.grid.outcome import GridOutcome, ModelOutcome, Normalised, Row
from evomerge.grid.record import (
    facts_of_grid,
    keep_grid,
    open_grid_study,
    refuse_grid,
    refuse_search,
    write_recipes,
)
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
    "refuse_grid",
    "refuse_search",
    "work_of",
    "write_recipes",
]
