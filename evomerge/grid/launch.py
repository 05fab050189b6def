"""One run of a grid: from a pinned grid and its job made ready to the outcome and its pages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from evomerge.candidate import Candidate, Observer, Say, ignore
from evomerge.events import Observe, unobserved
from evomerge.grid.checking import Work, work_of
from evomerge.grid.outcome import GridOutcome
from evomerge.grid.record import facts_of_grid, keep_grid, open_grid_study, write_recipes
from evomerge.grid.running import GridRun
from evomerge.grid.specification import GridSpec
from evomerge.preparation import Preparation, facts_folder
from evomerge.run import go_on, open_workers
from evomerge.study import Study
from evomerge.workers.pool import Pool


class GridWatcher(Protocol):
    """What shows a grid as it goes."""

    def announce(self, work: Work) -> None:
        """What is to be done."""

    def scoring(self, candidates: Sequence[Candidate]) -> AbstractContextManager[Observer]:
        """These are scored."""

    def searching(self, study: Study) -> AbstractContextManager[Observe]:
        """One of its searches runs."""

    def say(self, line: str) -> None:
        """A line for the user."""


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
"""Makes what shows a grid, once there is a record."""


def run_grid(
    spec: GridSpec,
    preparation: Preparation,
    run_dir: Path,
    *,
    say: Say,
    watch: WatchGrid = Unwatched,
    ray_address: str | None = None,
) -> GridOutcome:
    """Score what is missing of a grid, and write every merge as a recipe.

    say: told of what should be known before work begins. Raises InputError, WorkerError,
    StorageError.
    """
    with open_grid_study(run_dir, spec, preparation) as study:
        now = facts_of_grid(spec, preparation)
        go_on(study, now, what="grid", say=say)
        keep_grid(study, spec)
        for note in preparation.notes:
            say(f"note: {note}")
        watcher = watch(study)

        def open_pool(ready: Preparation, folder: Path) -> Pool:
            return open_workers(study, ready, folder, watcher.say, ray_address)

        run = GridRun(
            grid=spec,
            preparation=preparation,
            study=study,
            facts_folder=facts_folder(run_dir, now),
            open_pool=open_pool,
            watch_scoring=watcher.scoring,
            watch_search=watcher.searching,
        )
        watcher.announce(work_of(run))
        outcome = run.run()
        write_recipes(study, preparation)
    return outcome
