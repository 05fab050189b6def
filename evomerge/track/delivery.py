"""The delivery of a search's points to one tracker, in a thread of its own.

The search only leaves its newest snapshot and goes on; a slow or hanging tracker never holds it up.
What has come to the tracker is kept in the run directory (`tracker-NAME.json`), so that a resumed
search continues the same run after its last step.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evomerge.errors import hide_secrets, one_line
from evomerge.track.points import Ending, Point, Reached, Snapshot, points_of
from evomerge.track.tracker import TrackedRun, Tracker

_SAVED_EVERY = 50
"""Points after which a long replay is kept."""


class Delivery:
    """Delivers to one tracker, from `begin` to `end`; neither raises an error of the tracker."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name = name
        self._tracker = tracker
        self._changed = threading.Condition()
        self._snapshot: Snapshot | None = None
        self._ending: Ending | None = None
        self._closing = False
        self._ended = False
        self._problem: str | None = None
        self._thread: threading.Thread | None = None

    def begin(self, run: TrackedRun) -> None:
        """Start the thread, which opens the tracker."""
        self._thread = threading.Thread(
            target=self._deliver, args=(run,), name=f"track-{self.name}", daemon=True
        )
        self._thread.start()

    def leave(self, snapshot: Snapshot, ending: Ending | None = None) -> None:
        """Leave the newest state of the search; an older one that still waits is replaced."""
        with self._changed:
            self._snapshot = snapshot
            self._ending = ending or self._ending
            self._changed.notify()

    def end(self, *, ended: bool, wait_s: float) -> None:
        """Have the rest delivered and the tracker closed, and wait for that a while."""
        with self._changed:
            self._closing, self._ended = True, ended
            self._changed.notify()
        if self._thread is None:
            return
        self._thread.join(wait_s)
        if self._thread.is_alive() and self._problem is None:
            self._problem = f"it did not take the rest within {wait_s:g} seconds"

    def take_problem(self) -> str | None:
        """Why the tracker got nothing more, once; None while there is no problem."""
        problem, self._problem = self._problem, None
        return problem

    def _deliver(self, run: TrackedRun) -> None:
        try:
            self._serve(run)
        except BaseException as error:  # a library may even end its thread by SystemExit
            reason = one_line(hide_secrets(f"{type(error).__name__}: {error}"))
            self._problem = reason[:300]

    def _serve(self, run: TrackedRun) -> None:
        kept = _Kept(run.run_dir / f"tracker-{self.name}.json")
        id = self._tracker.open(replace(run, id=kept.id))
        try:
            if id != kept.id:
                kept.renew(id)
            own = self._tracker.reached()
            if own is not None:
                kept.reached = own
            kept.save()
            while self._wait():
                self._pass_on(kept)
        finally:
            self._tracker.close(ended=self._ended)

    def _wait(self) -> bool:
        """Wait for something to deliver; False where there is nothing and nothing will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._snapshot is not None or self._closing)
            return self._snapshot is not None

    def _pass_on(self, kept: _Kept) -> None:
        with self._changed:
            snapshot, self._snapshot = self._snapshot, None
            ending, self._ending = self._ending, None
        assert snapshot is not None, "there was something to deliver"
        for count, point in enumerate(points_of(snapshot, reached=kept.reached), start=1):
            self._log(point, kept)
            if count % _SAVED_EVERY == 0:
                kept.save()
        if ending is not None and kept.ending != _digest(ending):
            self._tracker.finish(ending)
            kept.ending = _digest(ending)
        kept.save()

    def _log(self, point: Point, kept: _Kept) -> None:
        if not kept.reached.has(point):
            self._tracker.log(point)
            kept.reached = kept.reached.after(point)


class _Kept:
    """What the run directory keeps of a tracker: the run's id, and what has come to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.id: str | None = None
        self.reached = Reached()
        self.ending: str | None = None
        found = _read(path)
        if isinstance(found.get("id"), str):
            self.id = found["id"]
            self.reached = Reached(
                candidates=_count(found.get("candidates")),
                generations=_count(found.get("generations")),
            )
            self.ending = found.get("ending")

    def renew(self, id: str) -> None:
        """Begin another run, which has nothing yet."""
        self.id, self.reached, self.ending = id, Reached(), None

    def save(self) -> None:
        from evomerge.study import write_whole

        text = json.dumps(
            {
                "id": self.id,
                "candidates": self.reached.candidates,
                "generations": self.reached.generations,
                "ending": self.ending,
            }
        )
        write_whole(self._path, lambda part: part.write_text(text, encoding="utf-8"))


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _digest(ending: Ending) -> str:
    text = json.dumps([dict(ending.values), dict(ending.texts)], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
