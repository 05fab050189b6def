"""The output of the command line during a search or a grid, and at its end."""

from __future__ import annotations

import contextlib
import shlex
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.cli.endings import interruptible, say, shown_path

if TYPE_CHECKING:
    from evomerge.grid import GridOutcome, GridProgress
    from evomerge.report import FinalItems, SearchProgress
    from evomerge.search import Event, Finished, Started
    from evomerge.study import Study
    from evomerge.workers import PreparedJob


class SearchScreen:
    """An observer of a search; use it in a `with` around it."""

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        self._progress: SearchProgress | None = None
        self._started: Started | None = None
        self._run_dir = Path()

    def __enter__(self) -> SearchScreen:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> bool | None:
        return self._open.__exit__(kind, error, trace)

    def __call__(self, event: Event) -> None:
        """Show an event."""
        from evomerge.search import Checking, Finished, Note, Started

        if isinstance(event, Checking):
            say_checking()
        elif isinstance(event, Started):
            self._start(event)
        elif isinstance(event, Finished):
            self._end(event)
        elif self._progress is not None:
            self._progress.show(event)
        elif isinstance(event, Note):
            say(event.text, err=True)

    def _start(self, event: Started) -> None:
        from evomerge.report import SearchProgress

        self._started = event
        self._run_dir = shown_path(event.run_dir)
        self._open.enter_context(
            interruptible(f"evomerge resume {shlex.quote(str(self._run_dir))}")
        )
        self._progress = self._open.enter_context(
            SearchProgress(event.study, final_items=_final_items(event.preparation))
        )

    def _end(self, event: Finished) -> None:
        from evomerge.report import show_result
        from evomerge.search import Selection, cut_answers

        assert self._started is not None, "a search ends after its start"
        self._open.close()
        say(f"Ended in generation {event.generations}: {event.reason}.", err=True)
        for line in event.outcome.lines():
            say(line)
        preparation = self._started.preparation
        if isinstance(event.outcome, Selection):
            suite, tasks = preparation.suite, preparation.job.all_tasks
            directions = {task: dict(suite.metrics(task)) for task in tasks}
            for metric in preparation.objective.metrics:
                directions.setdefault(metric.task, {})[metric.key] = metric.higher_is_better
            show_result(event.outcome, _metrics_shown(preparation), directions)
        for line in cut_answers(self._started.study).lines():
            say(line)
        say(f"next: {event.outcome.export_command(self._run_dir)}")


def say_checking() -> None:
    """Print a line for people while nothing else is shown; programs and logs do not get it."""
    if sys.stderr.isatty():
        say("Checking models, tasks and search space ...", err=True)


def _final_items(preparation: PreparedJob) -> FinalItems:
    from evomerge.report import FinalItems

    suite, job = preparation.suite, preparation.job
    return FinalItems(
        validation=sum(len(suite.items(task, "validation")) for task in job.search_tasks),
        test=sum(len(suite.items(task, "test")) for task in job.all_tasks),
    )


def _metrics_shown(preparation: PreparedJob) -> list[tuple[str, str]]:
    """Metrics of objectives and constraints, a group before its tasks, then reported tasks."""
    objective, suite, job = preparation.objective, preparation.suite, preparation.job
    wanted = [shown for metric in objective.metrics for shown in (metric, *metric.leaves)]
    reported = [task for task in job.all_tasks if task not in job.search_tasks]
    return list(
        dict.fromkeys(
            [
                *((metric.task, metric.key) for metric in wanted),
                *((task, metric) for task in reported for metric in suite.metrics(task)),
            ]
        )
    )


# The output for a grid.


def show_checking(event: Event) -> None:
    """Say that the models and tasks of a grid are checked."""
    from evomerge.search import Checking

    if isinstance(event, Checking):
        say_checking()


def grid_screen(study: Study) -> GridProgress:
    """The progress display of a grid."""
    from evomerge.grid import GridProgress

    return GridProgress(study)


def show_grid(outcome: GridOutcome, run_dir: Path) -> None:
    """Print the tables of a grid, and the paths of its tables and recipes."""
    from evomerge.grid import grid_lines

    for line in grid_lines(outcome):
        say(line)
    say(f"tables: {run_dir / 'grid.md'}, figures: {run_dir / 'grid.html'}")
    say(f"next: evomerge merge {run_dir / 'recipes' / 'CANDIDATE.yaml'} --out DIR")
