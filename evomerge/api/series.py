"""Coefficients of a search's merges, for pages that draw them themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evomerge.api.arguments import read_folder
from evomerge.study import read_study, refuse_grid


def coefficients_over_depth(run_dir: str | Path) -> list[dict[str, Any]]:
    """Coefficients of the winner, or of the best candidate so far, layer by layer.

    It reads the base model's header with the large libraries, so servers call it in a process of
    its own. Raises RunError, SourceError.
    """
    where = read_folder(run_dir)
    refuse_grid(where)
    with read_study(where) as study:
        from evomerge.report import depth_rows
        from evomerge.sources import open_source

        structure = open_source(study.job.models.base, where="models.base").structure
        return depth_rows(study, structure)
