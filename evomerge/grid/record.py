"""The record of a grid: a study like a search's, with the grid beside it.

    RUN_DIR/
    ├── grid.yaml            the grid as it was last run, pinned
    ├── job.yaml, study.db, items/, run.lock    as for a search; the cells are trials
    ├── searches/            a run directory for each search that is one of the methods
    ├── recipes/KEY.yaml     every merge, as `evomerge merge` takes it
    └── grid.md, grid.html   the outcome

A grid may be extended: by methods, sizes, subsets and seeds, and by the budget of a search. A
change to the meaning of a score is refused.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from evomerge.errors import RunError
from evomerge.grid.run import MERGES
from evomerge.grid.specification import GridSpec, parse_grid, written
from evomerge.space import read_space
from evomerge.study import (
    GRID_FILE,
    Study,
    create_study,
    refuse_search,
    resume_study,
    storage_errors,
    write_whole,
)
from evomerge.workers import PreparedJob, fingerprints_of, pin


def open_grid_study(run_dir: Path, grid: GridSpec, preparation: PreparedJob) -> Study:
    """The record of a pinned grid, new or resumed. Raises RunError, StorageError."""
    refuse_search(run_dir)
    if not (run_dir / "job.yaml").exists():
        facts = facts_of_grid(grid, preparation)
        # The grid file comes first. Otherwise a kill could leave a record that looks like a search.
        return create_study(
            run_dir, preparation.job, facts=facts, before=lambda: _begin(run_dir, grid)
        )
    study = resume_study(run_dir)
    if study.job.storage != grid.storage:
        study.close()
        raise RunError(
            f"storage: {grid.storage}: the record of {run_dir} stays where it began, in "
            f"{study.job.storage}"
        )
    return study


def write_recipes(study: Study, preparation: PreparedJob) -> None:
    """Write every scored merge as a recipe that needs no other file. Raises StorageError."""
    folder = study.run_dir / "recipes"
    with storage_errors(study.run_dir):
        folder.mkdir(exist_ok=True)
        for trial in study.trials_of("cell"):
            if trial.key.generation == MERGES and trial.failure is None:
                _write(
                    folder / f"{trial.key}.yaml", preparation.standing_alone(trial.recipe).to_yaml()
                )


def keep_grid(study: Study, grid: GridSpec) -> None:
    """Keep the grid as it is now. Raises StorageError."""
    with storage_errors(study.run_dir):
        _keep(study.run_dir, grid)


def _begin(run_dir: Path, grid: GridSpec) -> Path | None:
    """Keep the grid and return its path; None where the user's own file was there already."""
    path = run_dir / GRID_FILE
    new = not path.exists()
    _keep(run_dir, grid)
    return path if new else None


def _keep(run_dir: Path, grid: GridSpec) -> None:
    _write(run_dir / GRID_FILE, written(grid))


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def facts_of_grid(grid: GridSpec, preparation: PreparedJob) -> dict[str, Any]:
    """What every score of the grid depends on, like `fingerprints_of` for a search."""
    facts = fingerprints_of(preparation)
    own = {"held_in": [task.model_dump() for task in grid.held_in], "split": grid.split}
    hashed = {
        key: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
        for key, value in own.items()
    }
    return {**facts, "job": {**facts["job"], **hashed}}


# A pinned grid means the same at any time and in any folder.


def pin_grid(grid: GridSpec) -> GridSpec:
    """The grid with absolute paths, commits of hub ids, and search spaces written out.

    Raises InputError in one line.
    """
    job = pin(grid.job())
    held_in = tuple(
        task.model_copy(update={"expert": job.models.sources[grid.expert_of(task)]})
        for task in grid.held_in
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
