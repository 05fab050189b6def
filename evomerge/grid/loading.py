"""Grid files: read, checked, and pinned so that they mean the same tomorrow and elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from evomerge.documents import load_text
from evomerge.errors import JobError
from evomerge.grid.specification import GridSpec
from evomerge.job.loading import parse_sections
from evomerge.preparation import pin
from evomerge.space import read_space


def load_grid(path: Path, *, overrides: Iterable[str] = ()) -> GridSpec:
    """Read and check a grid file; `overrides` are as in load_job. Raises JobError in one line."""
    text = load_text(path, kind="a grid", error=JobError)
    return parse_grid(text, where=str(path), overrides=overrides)


def parse_grid(text: str, *, where: str, overrides: Iterable[str] = ()) -> GridSpec:
    """The same as load_grid for the text of a grid; `where` names it in messages."""
    expected = "name, models, held_in and methods"
    return parse_sections(GridSpec, text, where=where, expected=expected, overrides=overrides)


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


def written(grid: GridSpec) -> str:
    """The grid as a file that `load_grid` reads back equal."""
    document = grid.model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
