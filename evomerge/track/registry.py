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
            name="tensorboard", make=_tensorboard, module="tensorboardX", extra="tensorboard"
        ),
        TrackerKind(name="wandb", make=_wandb, module="wandb", extra="wandb"),
        TrackerKind(name="mlflow", make=_mlflow, module="mlflow", extra="mlflow"),
        TrackerKind(name="trackio", make=_trackio, module="trackio", extra="trackio"),
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
    if track is None:
        return {}
    if isinstance(track, Mapping):
        return {_known(name): dict(options or {}) for name, options in track.items()}
    if not isinstance(track, str | Sequence):
        raise InputError(
            f"track: {type(track).__name__}: give names of trackers, or a mapping of their options"
        )
    wishes: dict[str, dict[str, Any]] = {}
    for text in [track] if isinstance(track, str) else track:
        name, options = _split(text)
        if name in wishes:
            raise InputError(f"--track {name}: is given twice; give it once")
        wishes[name] = options
    return wishes


def _split(text: str) -> tuple[str, dict[str, str]]:
    name, _, written = str(text).partition(":")
    options: dict[str, str] = {}
    for part in written.split(",") if written else ():
        option, equals, value = part.partition("=")
        if not option or not equals or not value:
            raise InputError(f"--track {text}: {part!r} is no option; write {name}:OPTION=VALUE")
        options[option.strip()] = value
    return _known(name), options


def _known(name: str) -> str:
    problem = unknown_part(str(name), kind="tracker", built_in=list(BUILT_IN), group=GROUP)
    if problem is not None:
        raise InputError(f"--track: {problem}")
    return name


def check_wish(name: str, options: Mapping[str, Any]) -> TrackerKind:
    """The kind of a tracker that can be made with these options. Raises InputError."""
    kind = TRACKERS[name]
    if kind.module and importlib.util.find_spec(kind.module) is None:
        extra = (
            f"install the extra `{kind.extra}` (pip install 'evomerge[{kind.extra}]', in a "
            f"checkout '.[{kind.extra}]')"
            if kind.extra
            else f"install {kind.module}"
        )
        raise InputError(f"--track {name}: {kind.module} is not installed; {extra}")
    known = list(inspect.signature(kind.make).parameters)
    for option in options:
        if option not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise InputError(f"--track {name}: no option {option}; {has}")
    return kind
