"""What a tracker is: a run that is opened, gets points, and is closed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evomerge.track.points import Ending, Point, Reached


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """The search that a tracker shows.

    name: of the job. group: of the grid, for a search of a grid. id: what `open` returned when the
    run began; None for a new one. job: its content as plain values. job_text: the same as YAML.
    """

    name: str
    group: str | None
    run_dir: Path
    id: str | None
    job: Mapping[str, Any] = field(repr=False)
    job_text: str = field(repr=False)


class Tracker(ABC):
    """One run in a tracker. It is made before the search begins, where its package is imported.

    All methods are called in a thread of the tracker's own, so they may take their time; `open`
    first and `close` last. An exception ends the tracking with a note; the search goes on.
    """

    @abstractmethod
    def open(self, run: TrackedRun) -> str:
        """Begin a run, or continue `run.id`. Returns the id, which the run directory keeps."""

    def reached(self) -> Reached | None:
        """The last steps that the tracker itself has; None if it cannot tell.

        Then those count that the run directory keeps, if the id is the same as before.
        """
        return None

    @abstractmethod
    def log(self, point: Point) -> None:
        """Show a point; it has come safely to the tracker when this returns."""

    def finish(self, ending: Ending) -> None:  # noqa: B027 - a tracker may have no place for it
        """Show what the search found; called once for each outcome."""

    @abstractmethod
    def close(self, *, ended: bool) -> None:
        """Close the run. ended: whether the search is over; if not, it may be resumed."""


@dataclass(frozen=True, kw_only=True)
class TrackerKind:
    """A kind of tracker by name.

    make: imports the package and makes the tracker; its keyword arguments are the options. module:
    that must be installed. extra: of evomerge, that installs it; empty for a package's own tracker.

    names: the options that only name a place inside the tracker, such as a project. The people of a
    service may give those; every other option may be a path, an address or an account, so it is its
    operator's. operated: checks and completes what an operator gives, for processes that run in
    another folder. Raises InputError.
    """

    name: str
    make: Callable[..., Tracker]
    module: str = ""
    extra: str = ""
    names: tuple[str, ...] = ()
    operated: Callable[[Mapping[str, str]], Mapping[str, str]] = dict
