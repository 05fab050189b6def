"""In which trackers a job may be shown: those that the operator allows, with names in them.

A folder, an address or an account of a tracker is the operator's; its secrets are in the server's
environment alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from evomerge.api import tracker_of
from evomerge.service.settings import ServiceSettings
from evomerge.service.store.job import Kind
from evomerge.service.store.refusals import Refusal

TRACKED: frozenset[Kind] = frozenset({"search", "grid"})
"""Kinds of jobs that search."""

_NAME = re.compile(r"[^\W_](?:[\w .-]{0,98}[\w-])?")

Track = Mapping[str, Mapping[str, str]]


def check_track(kind: Kind, track: Track, settings: ServiceSettings) -> None:
    """Refuse what the job may not be shown in. Raises Refusal."""
    if track and kind not in TRACKED:
        raise Refusal(
            f"a job of kind {kind} does not search",
            field="track",
            value=", ".join(track),
            mend="leave it out",
        )
    for name, options in track.items():
        if name not in settings.trackers:
            raise Refusal(
                "not a tracker of this service", field="track", value=name, mend=_mend(settings)
            )
        facts = tracker_of(name)
        if facts.missing is not None:
            raise Refusal(
                "its package is not installed on the server",
                field="track",
                value=name,
                mend=f"leave it out, or ask the operator to {facts.missing}",
            )
        _check_options(name, options, settings)


def free_names(name: str, settings: ServiceSettings) -> tuple[str, ...]:
    """The options of an allowed tracker that a job may give."""
    fixed = settings.trackers[name]
    return tuple(each for each in tracker_of(name).names if each not in fixed)


def usable(track: Track, settings: ServiceSettings) -> tuple[dict[str, dict[str, str]], list[str]]:
    """What a search is shown in now, with the operator's options, and what is refused by now.

    The operator may have changed it since the job was submitted, which ends no search.
    """
    wishes: dict[str, dict[str, str]] = {}
    refused: list[str] = []
    for name, options in track.items():
        try:
            check_track("search", {name: options}, settings)
        except Refusal as refusal:
            refused.append(str(refusal))
        else:
            wishes[name] = {**options, **settings.trackers[name]}
    return wishes, refused


def _check_options(name: str, options: Mapping[str, str], settings: ServiceSettings) -> None:
    free = free_names(name, settings)
    for option, value in options.items():
        if option not in free:
            raise Refusal(
                f"not an option of {name} that a job may give",
                field="track",
                value=option,
                mend=f"give {' or '.join(free)}" if free else "leave it out; the operator sets it",
            )
        if len(value) > 100 or _NAME.fullmatch(value) is None:
            raise Refusal(
                "not a name",
                field=f"track.{name}.{option}",
                value=value,
                mend="write up to 100 letters, digits, spaces, dots, - and _",
            )


def _mend(settings: ServiceSettings) -> str:
    if settings.trackers:
        return f"name {' or '.join(settings.trackers)}"
    return "leave it out, or ask the operator to allow it (--allow-tracker)"
