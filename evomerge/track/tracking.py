"""Trackers as one observer of a search."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from evomerge.errors import InputError, hide_secrets, one_line
from evomerge.track.delivery import Delivery
from evomerge.track.points import Ending, Snapshot, ending_of
from evomerge.track.registry import Track, check_wish, wishes_of
from evomerge.track.tracker import TrackedRun, Tracker

if TYPE_CHECKING:
    from evomerge.search import Event, Observe
    from evomerge.study import Study

END_S = 60.0
"""Seconds that trackers have for the rest after a search has ended."""

STOP_S = 3.0
"""Seconds that they have where it was stopped; the command is ended some seconds later."""


class Tracking:
    """An observer of one search that delivers to trackers; it never raises an error of theirs.

    trackers: by name. say: called in the search's thread with a note on a tracker that failed.
    name: of the run; the job's, or in a group the run directory's, if not given.
    """

    def __init__(
        self,
        trackers: Mapping[str, Tracker],
        say: Callable[[str], object],
        *,
        group: str | None = None,
        name: str | None = None,
    ) -> None:
        self._deliveries = [Delivery(name, tracker) for name, tracker in trackers.items()]
        self._say = say
        self._group = group
        self._name = name
        self._study: Study | None = None
        self._begun = False
        self._complete = 0
        self._ended = False

    def __call__(self, event: Event) -> None:
        """Take an event."""
        self._guarded(lambda: self._take(event))
        self._report()

    def close(self) -> None:
        """Deliver the rest."""
        for delivery in self._deliveries:
            delivery.end(ended=self._ended, wait_s=END_S if self._ended else STOP_S)
        self._report()

    def _take(self, event: Event) -> None:
        from evomerge.search import CandidateDone, Finished, GenerationDone, Started

        if isinstance(event, Started):
            self._study = event.study
        elif isinstance(event, GenerationDone):
            self._complete = max(self._complete, event.generation)
            self._leave()
        elif isinstance(event, CandidateDone):
            self._leave()
        elif isinstance(event, Finished):
            self._complete = max(self._complete, event.generations)
            self._ended = True
            self._leave(ending_of(event.outcome))

    def _leave(self, ending: Ending | None = None) -> None:
        assert self._study is not None, "a search has started"
        trials = self._study.trials
        newest = max(
            (trial.key.generation for trial in trials if trial.kind == "genome"), default=0
        )
        self._complete = max(self._complete, newest - 1)
        snapshot = Snapshot(trials=trials, complete=self._complete)
        # Not before there is a result: a search whose workers cannot start leaves no run directory.
        if not self._begun:
            self._begun = True
            self._begin(self._study)
        for delivery in self._deliveries:
            delivery.leave(snapshot, ending)

    def _begin(self, study: Study) -> None:
        run = TrackedRun(
            name=self._name or (study.job.name if self._group is None else study.run_dir.name),
            group=self._group,
            run_dir=study.run_dir,
            id=None,
            job=study.job.model_dump(mode="json", exclude_none=True),
            job_text=study.job.to_yaml(),
        )
        for delivery in self._deliveries:
            delivery.begin(run)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            self._say(_note("trackers", error))
            self._deliveries = []

    def _report(self) -> None:
        for delivery in self._deliveries:
            problem = delivery.take_problem()
            if problem is not None:
                self._say(
                    f"note: --track {delivery.name} gets nothing more ({problem}); "
                    "the search goes on without it"
                )


def _note(name: str, error: BaseException) -> str:
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    reason = one_line(hide_secrets(f"{kind}{error}"))[:300]
    return f"note: --track {name} cannot be used ({reason}); the search goes on without it"


def _made(track: Track, say: Callable[[str], object]) -> Callable[[], dict[str, Tracker]]:
    """Check what is asked for; the result makes the trackers. Raises InputError."""
    wishes = wishes_of(track)
    kinds = {name: check_wish(name, options) for name, options in wishes.items()}

    def make() -> dict[str, Tracker]:
        trackers: dict[str, Tracker] = {}
        for name, kind in kinds.items():
            try:
                trackers[name] = kind.make(**wishes[name])
            except InputError:
                raise
            except Exception as error:
                say(_note(name, error))
        return trackers

    return make


@contextlib.contextmanager
def track_search(track: Track, observe: Observe) -> Iterator[Observe]:
    """Observe a search with trackers too.

    track: names, or names and options. observe: gets every event first, and a Note of a tracker
    that failed. The packages are imported here, in this thread and before the search: two threads
    that import the same large library can get in each other's way. Raises InputError for a tracker
    that is not known or not installed, and for an option that it does not have.
    """
    say = _noting(observe)
    yield from _observed(_made(track, say)(), observe, say, group=None)


@contextlib.contextmanager
def track_job(
    track: Mapping[str, Mapping[str, str]],
    observe: Observe,
    *,
    say: Callable[[str], object],
    name: str | None = None,
    group: str | None = None,
) -> Iterator[Observe]:
    """Observe a search of a service with trackers; one that cannot be used is noted and left out.

    track: name -> options, the operator's among them. say: called with a note on a tracker that
    failed. name, group: as in `Tracking`; many searches of a service may have one job's name.
    """
    trackers: dict[str, Tracker] = {}
    for each, options in track.items():
        try:
            trackers[each] = check_wish(each, options).make(**options)
        except (Exception, SystemExit) as error:
            say(_note(each, error))
    yield from _observed(trackers, observe, say, group=group, name=name)


def _observed(
    trackers: Mapping[str, Tracker],
    observe: Observe,
    say: Callable[[str], object],
    *,
    group: str | None,
    name: str | None = None,
) -> Iterator[Observe]:
    if not trackers:
        yield observe
        return
    tracking = Tracking(trackers, say, group=group, name=name)

    def both(event: Event) -> None:
        observe(event)
        tracking(event)

    try:
        yield both
    finally:
        tracking.close()


def _noting(observe: Observe) -> Callable[[str], None]:
    def say(text: str) -> None:
        from evomerge.search import Note

        observe(Note(text=text))

    return say


SearchTracking = Callable[["Observe"], "contextlib.AbstractContextManager[Observe]"]
"""Observes one search of several with trackers too."""


def track_searches(track: Track, *, group: str, say: Callable[[str], object]) -> SearchTracking:
    """The same for the searches of a grid, each a run of its own in one group."""
    make = _made(track, say)
    if track:
        make()  # what a tracker refuses is refused before the grid begins

    @contextlib.contextmanager
    def tracked(observe: Observe) -> Iterator[Observe]:
        yield from _observed(make(), observe, _noting(observe), group=group)

    return tracked
