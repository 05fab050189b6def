"""Grid files: read, checked, and written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from evomerge.documents import load_text
from evomerge.errors import JobError
from evomerge.grid.specification import GridSpec
from evomerge.job.loading import parse_sections


def load_grid(path: Path, *, overrides: Iterable[str] = ()) -> GridSpec:
    """Read and check a grid file; `overrides` are as in load_job. Raises JobError in one line."""
    text = load_text(path, kind="a grid", error=JobError)
    return parse_grid(text, where=str(path), overrides=overrides)


def parse_grid(text: str, *, where: str, overrides: Iterable[str] = ()) -> GridSpec:
    """The same as load_grid for the text of a grid; `where` names it in messages."""
    expected = "name, models, held_in and methods"
    return parse_sections(GridSpec, text, where=where, expected=expected, overrides=overrides)


def written(grid: GridSpec) -> str:
    """The grid as a file that `load_grid` reads back equal."""
    document = grid.model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
