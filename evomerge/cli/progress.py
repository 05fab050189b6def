"""What the command line prints during a search or a grid and at the end of each kind of work."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.cli.endings import interruptible, say, say_json, say_note, shown_path

if TYPE_CHECKING:
    from evomerge.check import CheckReport
    from evomerge.evaluate import ScoreSummary
    from evomerge.export import ExportReport
    from evomerge.grid import GridOutcome, GridProgress
    from evomerge.report import FinalItems, SearchProgress
    from evomerge.search import Event, Finished, SearchOutcome, Started
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
        self._open.enter_context(interruptible(f"evomerge resume {self._run_dir}"))
        self._progress = self._open.enter_context(
            SearchProgress(event.study, final_items=_final_items(event.preparation))
        )

    def _end(self, event: Finished) -> None:
        from evomerge.api import shown_metrics
        from evomerge.search import cut_answers

        assert self._started is not None, "a search ends after its start"
        self._open.close()
        say_ended(event)
        show_outcome(
            event.outcome,
            shown_metrics(self._started.preparation),
            cut_answers(self._started.study).lines(),
        )
        say(f"next: {event.outcome.export_command(self._run_dir)}")


def say_ended(event: Finished) -> None:
    """Say why a search ended."""
    say(f"Ended in generation {event.generations}: {event.reason}.", err=True)


def show_outcome(
    outcome: SearchOutcome, metrics: Sequence[Mapping[str, Any]], cut: Sequence[str]
) -> None:
    """Print the outcome of a search. metrics: as `shown_metrics`; cut: lines on cut answers."""
    from evomerge.report import show_result
    from evomerge.search import Selection

    for line in outcome.lines():
        say(line)
    if isinstance(outcome, Selection):
        directions: dict[str, dict[str, bool]] = {}
        for row in metrics:
            directions.setdefault(row["task"], {})[row["metric"]] = row["higher_is_better"]
        show_result(outcome, [(row["task"], row["metric"]) for row in metrics], directions)
    for line in cut:
        say(line)


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


def show_grid(outcome: GridOutcome) -> None:
    """Print the tables of a grid."""
    from evomerge.grid import grid_lines

    for line in grid_lines(outcome):
        say(line)


# The output of commands that end with a report.


def show_check(report: CheckReport, *, as_json: bool) -> None:
    """Print what a check found."""
    if as_json:
        say_json(report.to_json())
        return
    for line in report.lines():
        say(line)


def show_scores(summary: ScoreSummary, *, model: str, split: str, as_json: bool) -> None:
    """Print the scores of one model."""
    if as_json:
        say_json(summary.to_json())
        return
    say(f"{model}: all {split} items; in brackets 95% intervals")
    for line in summary.lines():
        say(line)


def show_export(report: ExportReport) -> None:
    """Print what was exported."""
    for note in report.weights.notes:
        say_note(note)
    for line in report.lines():
        say(line)
