"""Trackers as a service uses them: what one is, and a search that is shown in some."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evomerge.search import Observe


@dataclass(frozen=True, kw_only=True)
class TrackerFacts:
    """A tracker. names: options that only name a place in it. missing: how to install it, if so."""

    names: tuple[str, ...]
    missing: str | None


def tracker_of(name: str) -> TrackerFacts:
    """The facts of a tracker that is known here; its package is not imported."""
    from evomerge.track import TRACKERS, missing_of

    kind = TRACKERS[name]
    return TrackerFacts(names=kind.names, missing=missing_of(kind))


def observe_with(
    track: Mapping[str, Mapping[str, str]],
    observe: Observe,
    *,
    say: Callable[[str], object],
    name: str | None = None,
    group: str | None = None,
) -> contextlib.AbstractContextManager[Observe]:
    """Observe a search with trackers too; whatever happens to them is said, and it goes on.

    name, group: of the run in each tracker.
    """
    from evomerge.track import track_job

    return track_job(track, observe, say=say, name=name, group=group)
