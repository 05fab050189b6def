"""A grid with nothing left that could mean something else tomorrow or in another folder."""

from __future__ import annotations

from evomerge.grid.loading import parse_grid, written
from evomerge.grid.specification import GridSpec
from evomerge.preparation import pin
from evomerge.space import read_space


def pin_grid(grid: GridSpec) -> GridSpec:
    """The grid with absolute paths, commits of hub ids, and search spaces written out.

    Raises InputError in one line.
    """
    job = pin(grid.job())
    held_in = tuple(
        held.model_copy(update={"expert": job.models.sources[grid.expert_of(held)]})
        for held in grid.held_in
    )
    methods = tuple(
        method
        if method.search_space is None
        else method.model_copy(update={"search_space": read_space(method.search_space)})
        for method in grid.methods
    )
    pinned = grid.model_copy(
        update={
            "models": job.models,
            "evaluation": job.evaluation,
            "held_in": held_in,
            "methods": methods,
        }
    )
    return parse_grid(written(pinned), where="grid")
