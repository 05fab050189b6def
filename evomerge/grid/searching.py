"""The searches of a grid: each an ordinary search over one subset, in a run directory of its own.

It can be looked at, reported and exported as any other; the grid takes its winner as one more
recipe and scores it like the rest. It sees the search and validation items of its experts' tasks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from evomerge.events import Observe
from evomerge.grid.cells import Cell, label_of
from evomerge.grid.specification import GridSpec
from evomerge.job import JobSpec
from evomerge.optimize.baselines import parent_labels
from evomerge.outcome import Selection
from evomerge.preparation import facts_of, pin, prepare
from evomerge.recipe import Recipe, read_recipe
from evomerge.run import OpenPool, run_study
from evomerge.study import Study, create_study, resume_study
from evomerge.study.notes import SEARCHES

_FOLDER = "searches"

WatchSearch = Callable[[Study], AbstractContextManager[Observe]]
"""What shows a search while it runs."""


def search_name(grid: GridSpec, cell: Cell) -> str:
    """Name of a cell's run directory: method, experts and seed, as a file system takes them."""
    names = parent_labels(grid.models.sources)
    parts = [label_of(cell.method), *(names[place] for place in cell.experts), f"seed{cell.seed}"]
    plain = "-".join(re.sub(r"[^A-Za-z0-9._]+", "_", part) for part in parts)
    # Names that differ in other letters alone stay apart.
    return f"{plain}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:6]}"


def job_of(grid: GridSpec, cell: Cell) -> JobSpec:
    """The search of a cell as a job."""
    assert cell.seed is not None
    return pin(grid.search_job(cell.method, cell.experts, seed=cell.seed))


def found_by(grid: GridSpec, cell: Cell, study: Study) -> Recipe | None:
    """What the search of a cell found with its present budget; None where it has yet to end."""
    noted = (study.noted(SEARCHES) or {}).get(search_name(grid, cell))
    if noted is None or noted["budget"] != _budget_of(cell):
        return None
    return read_recipe(noted["recipe"], where=f"the winner of {search_name(grid, cell)}")


def find(
    grid: GridSpec, cell: Cell, study: Study, *, open_pool: OpenPool, watch: WatchSearch
) -> Recipe:
    """Search, or go on with the search of a cell, and keep what it found in the grid's record.

    Raises InputError, WorkerError.
    """
    name = search_name(grid, cell)
    run_dir = study.run_dir / _FOLDER / name
    preparation = prepare(job_of(grid, cell))
    now = facts_of(preparation)
    with _open(run_dir, preparation.job, now) as search:
        search.job = preparation.job
        with watch(search) as observe:
            _, selection = run_study(
                search,
                preparation,
                observe=observe,
                facts_dir=study.run_dir,
                open_pool=open_pool,
            )
    assert isinstance(selection, Selection), "a grid's searches have one objective"
    recipe = selection.recipe
    kept = {"budget": _budget_of(cell), "winner": selection.winner, "recipe": recipe.to_yaml()}
    study.note(SEARCHES, {**(study.noted(SEARCHES) or {}), name: kept})
    return recipe


def _open(run_dir: Path, job: JobSpec, facts: Mapping[str, Any]) -> Study:
    if (run_dir / "job.yaml").exists():
        return resume_study(run_dir)
    return create_study(run_dir, job, facts=facts)


def _budget_of(cell: Cell) -> dict[str, float | None]:
    assert cell.method.budget is not None
    return cell.method.budget.model_dump()
