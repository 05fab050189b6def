"""One run of a grid, from a pinned grid and its prepared job to the outcome and the recipes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from evomerge.errors import InputError, JobError
from evomerge.evaluate import Candidate, Observer, Say, check_normalisable, count_items, ignore
from evomerge.grid.cells import Cell, cells_of, label_of
from evomerge.grid.outcome import GridOutcome
from evomerge.grid.record import facts_of_grid, keep_grid, open_grid_study, write_recipes
from evomerge.grid.run import GridRun, found_by, job_of
from evomerge.grid.specification import GridSpec
from evomerge.job import BudgetSpec
from evomerge.merge import MergeEngine, open_stages
from evomerge.search import Observe, go_on, open_workers, unobserved
from evomerge.study import Study
from evomerge.workers import Pool, PreparedJob, cache_folder, prepare

# Checks of a grid before anything is scored, and the amount of work.


def check_grid(grid: GridSpec, preparation: PreparedJob) -> None:
    """Refuse a pinned grid that cannot run; reads no tensor. Raises InputError.

    Every method is tried with the first subset of each size. Other subsets of that size cannot be
    wrong in another way.
    """
    for task in (*grid.held_in, *grid.held_out):
        check_normalisable(preparation.suite.metric(task.task, task.metric))
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


def _check_cell(grid: GridSpec, cell: Cell, preparation: PreparedJob) -> None:
    if cell.recipe is None:
        prepare(job_of(grid, cell))
        return
    sources = preparation.sources
    MergeEngine(open_stages(cell.recipe, sources)).execute(cell.recipe)


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work that a grid has left to do.

    models: number of models to score (base, experts, merges), on `items` items in all. recorded:
    number of models that have a record. searches: the budget of each search to run; its winner is
    one more merge to score.
    """

    models: int
    items: int
    recorded: int
    searches: tuple[BudgetSpec, ...]


def work_of(run: GridRun) -> Work:
    """The work that is left of a grid; finding it out costs little."""
    cells = [
        cell if cell.recipe else replace(cell, recipe=found_by(run.grid, cell, run.study))
        for cell in cells_of(run.grid, out_dtype=run.preparation.out_dtype)
    ]
    candidates = [*run.models_alone(), *run.merges(cells)]
    missing = run.missing(candidates)
    budgets = [cell.method.budget for cell in cells if cell.recipe is None]
    return Work(
        models=len(missing),
        items=sum(count_items(candidate.items) for candidate in missing),
        recorded=len({candidate.key for candidate in candidates}) - len(missing),
        searches=tuple(budget for budget in budgets if budget is not None),
    )


class GridWatcher(Protocol):
    """Shows the progress of a grid."""

    def announce(self, work: Work) -> None:
        """Show the work that is left."""

    def scoring(self, candidates: Sequence[Candidate]) -> AbstractContextManager[Observer]:
        """Show the progress while these candidates are scored."""

    def searching(self, study: Study) -> AbstractContextManager[Observe]:
        """Show one of the grid's searches while it runs."""

    def say(self, line: str) -> None:
        """Show a line to the user."""


class Unwatched:
    """Shows nothing."""

    def __init__(self, study: Study) -> None:
        self.study = study

    def announce(self, work: Work) -> None:
        """See GridWatcher."""

    @contextlib.contextmanager
    def scoring(self, candidates: Sequence[Candidate]) -> Iterator[Observer]:
        """See GridWatcher."""
        yield ignore

    @contextlib.contextmanager
    def searching(self, study: Study) -> Iterator[Observe]:
        """See GridWatcher."""
        yield unobserved

    def say(self, line: str) -> None:
        """See GridWatcher."""


WatchGrid = Callable[[Study], GridWatcher]
"""Makes the watcher of a grid when its record is open."""


def run_grid(
    spec: GridSpec,
    preparation: PreparedJob,
    run_dir: Path,
    *,
    say: Say,
    watch: WatchGrid = Unwatched,
    track: Callable[[Observe], AbstractContextManager[Observe]] = contextlib.nullcontext,
    ray_address: str | None = None,
) -> GridOutcome:
    """Score the missing models of a grid, and write every merge as a recipe.

    say: called with notes for the user before work begins. track: adds trackers to the observer of
    one of its searches. Raises InputError, WorkerError,
    StorageError.
    """
    with open_grid_study(run_dir, spec, preparation) as study:
        now = facts_of_grid(spec, preparation)
        go_on(study, now, what="grid", say=say)
        keep_grid(study, spec)
        for note in preparation.notes:
            say(f"note: {note}")
        watcher = watch(study)

        def open_pool(ready: PreparedJob, folder: Path) -> Pool:
            return open_workers(study, ready, folder, watcher.say, ray_address)

        @contextlib.contextmanager
        def searching(search: Study) -> Iterator[Observe]:
            with watcher.searching(search) as observe, track(observe) as observed:
                yield observed

        run = GridRun(
            grid=spec,
            preparation=preparation,
            study=study,
            cache_folder=cache_folder(run_dir, now),
            open_pool=open_pool,
            watch_scoring=watcher.scoring,
            watch_search=searching,
        )
        watcher.announce(work_of(run))
        outcome = run.run()
        write_recipes(study, preparation)
    return outcome
