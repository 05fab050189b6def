"""The progress bar on stderr while models are calibrated, in a terminal only."""

from __future__ import annotations

import types

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from evomerge.errors import one_line


class CalibrationProgress:
    """A bar for each file that is computed; use it in a `with`, and give it to `calibrate`."""

    def __init__(self, console: Console | None = None) -> None:
        """console: where to draw; stderr if not given."""
        shown = console or Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._progress = Progress(
            *columns,
            TimeRemainingColumn(),
            console=shown,
            transient=True,
            disable=not shown.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, label: str, done: int, count: int) -> None:
        """Show that `done` of `count` sequences are done for the file that `label` names."""
        if label not in self._tasks:
            self._tasks[label] = self._progress.add_task(escape(one_line(label)))
        self._progress.update(self._tasks[label], completed=done, total=count, visible=done < count)

    def __enter__(self) -> CalibrationProgress:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._progress.stop()
