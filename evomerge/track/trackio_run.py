"""Trackio: a run of a local project, in a database of Trackio's own."""

from __future__ import annotations

import contextlib
import sys
import uuid
from typing import Any

from trackio import Run
from trackio.sqlite_storage import SQLiteStorage

from evomerge.track.points import Ending, Point, Reached
from evomerge.track.tracker import TrackedRun, Tracker


class TrackioRun(Tracker):
    """A run; `trackio show --project PROJECT` shows it.

    project: `evomerge` if not given.
    """

    def __init__(self, *, project: str | None = None) -> None:
        self._project = project or "evomerge"

    def open(self, run: TrackedRun) -> str:
        """See Tracker; the id is PROJECT/RUN."""
        project, _, id = (run.id or "").rpartition("/")
        if project != self._project:
            id = ""
        # Made directly: `trackio.init` prints to stdout, where the search prints its result.
        self._run: Any = Run(
            url=None,
            project=self._project,
            client=None,
            name=run.name,
            run_id=id or uuid.uuid4().hex,
            group=run.group,
            config=dict(run.job),
        )
        return f"{self._project}/{self._run.id}"

    def reached(self) -> Reached:
        """See Tracker."""
        logs = SQLiteStorage.get_logs(self._project, run_id=self._run.id)
        return Reached(
            candidates=int(max((log.get("candidate/number", 0) for log in logs), default=0)),
            generations=int(max((log.get("generation/number", 0) for log in logs), default=0)),
        )

    def log(self, point: Point) -> None:
        """See Tracker."""
        self._run.log(dict(point.values))

    def finish(self, ending: Ending) -> None:
        """See Tracker."""
        self._run.log({**ending.values, **{f"outcome/{k}": v for k, v in ending.texts.items()}})

    def close(self, *, ended: bool) -> None:
        """See Tracker."""
        with contextlib.redirect_stdout(sys.stderr):  # results go to stdout, and it says it is done
            self._run.finish()
