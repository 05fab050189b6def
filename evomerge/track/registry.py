"""The trackers by name, and how a user asks for one: `NAME` or `NAME:OPTION=VALUE,...`.

Installed packages add trackers by entry points of the group `evomerge.trackers`. Each gives the
name of a tracker and the place of its `TrackerKind`; it is imported only when it is asked for.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from evomerge.errors import InputError
from evomerge.registry import Registry, unknown_part
from evomerge.track.operated import check_mlflow, check_tensorboard, check_wandb
from evomerge.track.tracker import Tracker, TrackerKind

Track: TypeAlias = "str | Sequence[str] | Mapping[str, Mapping[str, object] | None] | None"
"""Trackers by name; as a mapping with the options of each."""

GROUP = "evomerge.trackers"


def _tensorboard(dir: str | None = None) -> Tracker:
    from evomerge.track.tensorboard_run import TensorBoardRun

    return TensorBoardRun(dir=dir)


def _wandb(
    project: str | None = None, entity: str | None = None, mode: str | None = None
) -> Tracker:
    from evomerge.track.wandb_run import WandbRun

    return WandbRun(project=project, entity=entity, mode=mode)


def _mlflow(uri: str | None = None, experiment: str | None = None) -> Tracker:
    from evomerge.track.mlflow_run import MlflowRun

    return MlflowRun(uri=uri, experiment=experiment)


def _trackio(project: str | None = None) -> Tracker:
    from evomerge.track.trackio_run import TrackioRun

    return TrackioRun(project=project)


BUILT_IN: dict[str, TrackerKind] = {
    kind.name: kind
    for kind in (
        TrackerKind(
            name="tensorboard",
            make=_tensorboard,
            module="tensorboardX",
            extra="tensorboard",
            operated=check_tensorboard,
        ),
        TrackerKind(
            name="wandb",
            make=_wandb,
            module="wandb",
            extra="wandb",
            names=("project",),
            operated=check_wandb,
        ),
        TrackerKind(
            name="mlflow",
            make=_mlflow,
            module="mlflow",
            extra="mlflow",
            names=("experiment",),
            operated=check_mlflow,
        ),
        TrackerKind(
            name="trackio",
            make=_trackio,
            module="trackio",
            extra="trackio",
            names=("project",),
        ),
    )
}
"""Name -> evomerge's own tracker."""


def _read(found: object, name: str) -> TrackerKind | None:
    return found if isinstance(found, TrackerKind) and found.name == name else None


TRACKERS: Registry[TrackerKind] = Registry(
    key="track",
    group=GROUP,
    built_in=BUILT_IN,
    read=_read,
    wanted="evomerge.track.TrackerKind of that name",
    code=lambda kind: kind.make,
)


def wishes_of(track: Track) -> dict[str, dict[str, Any]]:
    """Name -> options of every tracker that is asked for. Raises InputError."""
    return {_known(name): options for name, options in plain_wishes(track).items()}


def plain_wishes(track: Track, *, option: str = "--track") -> dict[str, dict[str, Any]]:
    """The same, whatever trackers are installed here. option: for messages. Raises InputError."""
    if track is None:
        return {}
    if isinstance(track, Mapping):
        return {name: dict(options or {}) for name, options in track.items()}
    if not isinstance(track, str | Sequence):
        raise InputError(
            f"track: {type(track).__name__}: give names of trackers, or a mapping of their options"
        )
    wishes: dict[str, dict[str, Any]] = {}
    for text in [track] if isinstance(track, str) else track:
        name, options = _split(text, option)
        if name in wishes:
            raise InputError(f"{option} {name}: is given twice; give it once")
        wishes[name] = options
    return wishes


def _split(text: str, option: str) -> tuple[str, dict[str, str]]:
    name, _, written = str(text).partition(":")
    options: dict[str, str] = {}
    for part in written.split(",") if written else ():
        key, equals, value = part.partition("=")
        if not key or not equals or not value:
            raise InputError(f"{option} {text}: {part!r} is no option; write {name}:OPTION=VALUE")
        options[key.strip()] = value
    return name, options


def _known(name: str, option: str = "--track") -> str:
    problem = unknown_part(str(name), kind="tracker", built_in=list(BUILT_IN), group=GROUP)
    if problem is not None:
        raise InputError(f"{option}: {problem}")
    return name


def check_wish(name: str, options: Mapping[str, Any], *, option: str = "--track") -> TrackerKind:
    """The kind of a tracker that can be made with these options. Raises InputError."""
    kind = TRACKERS[name]
    mend = missing_of(kind)
    if mend is not None:
        raise InputError(f"{option} {name}: {kind.module} is not installed; {mend}")
    known = list(inspect.signature(kind.make).parameters)
    for given in options:
        if given not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise InputError(f"{option} {name}: no option {given}; {has}")
    return kind


def missing_of(kind: TrackerKind) -> str | None:
    """What to do where the package of a tracker is not installed; None where it is."""
    if not kind.module or importlib.util.find_spec(kind.module) is not None:
        return None
    if not kind.extra:
        return f"install {kind.module}"
    return (
        f"install the extra `{kind.extra}` (pip install 'evomerge[{kind.extra}]', in a checkout "
        f"'.[{kind.extra}]')"
    )


def allow_trackers(given: Sequence[str]) -> dict[str, dict[str, str]]:
    """The trackers that the operator of a service allows, each with the options that are fixed.

    given: as `--allow-tracker` has them, NAME[:OPTION=VALUE,...]. Raises InputError.
    """
    option = "--allow-tracker"
    allowed: dict[str, dict[str, str]] = {}
    for name, options in plain_wishes(given, option=option).items():
        kind = check_wish(_known(name, option), options, option=option)
        try:
            allowed[name] = dict(kind.operated(options))
        except InputError as error:
            raise InputError(f"{option} {name}: {error}") from error
    return allowed
