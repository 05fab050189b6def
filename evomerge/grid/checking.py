"""What can be wrong with a grid, found before anything is scored; and what it will cost."""

from __future__ import annotations

from dataclasses import dataclass, replace

from evomerge.candidate import count_items
from evomerge.errors import InputError, JobError
from evomerge.evaluate.normalised import check_normalisable
from evomerge.grid.cells import Cell, cells_of, label_of
from evomerge.grid.running import GridRun
from evomerge.grid.searching import found_by, job_of
from evomerge.grid.specification import GridSpec
from evomerge.job import BudgetSpec
from evomerge.merge.engine import MergeEngine
from evomerge.merge.merged_source import open_stages
from evomerge.preparation import Preparation, prepare


def check_grid(grid: GridSpec, preparation: Preparation) -> None:
    """Refuse a pinned grid that cannot run as it stands; reads no tensor. Raises InputError.

    Every method is tried with the first subset of each size: the others differ in nothing that
    could be wrong.
    """
    for held in (*grid.held_in, *grid.held_out):
        check_normalisable(preparation.suite.metric(held.task, held.metric))
    tried: set[tuple[str, int]] = set()
    for cell in cells_of(grid, out_dtype=preparation.out_dtype):
        kind = label_of(cell.method), len(cell.experts)
        if kind in tried:
            continue
        tried.add(kind)
        try:
            _check_cell(grid, cell, preparation)
        except InputError as error:
            raise JobError(f"methods: {kind[0]} of {kind[1]} experts: {error}") from error


def _check_cell(grid: GridSpec, cell: Cell, preparation: Preparation) -> None:
    if cell.recipe is None:
        prepare(job_of(grid, cell))
        return
    sources = preparation.sources
    MergeEngine(open_stages(cell.recipe, sources)).execute(cell.recipe)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a grid has yet to do.

    models: base, experts and merges to be scored, on `items` in all. recorded: those that have a
    record. searches: budgets of those to be run; the winner of each is one more merge to score.
    """

    models: int
    items: int
    recorded: int
    searches: tuple[BudgetSpec, ...]


def work_of(run: GridRun) -> Work:
    """What is left of a grid, before anything is opened that costs."""
    cells = [
        cell if cell.recipe else replace(cell, recipe=found_by(run.grid, cell, run.study))
        for cell in cells_of(run.grid, out_dtype=run.preparation.out_dtype)
    ]
    candidates = [*run.models_alone(), *run.merges(cells)]
    missing = run.missing(candidates)
    budgets = [cell.method.budget for cell in cells if cell.recipe is None]
    return Work(
        models=len(missing),
        items=sum(count_items(one.items) for one in missing),
        recorded=len({one.key for one in candidates}) - len(missing),
        searches=tuple(budget for budget in budgets if budget is not None),
    )
