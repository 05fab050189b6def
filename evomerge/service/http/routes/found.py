"""What a job may name here: models, tasks, spaces, merge methods, trackers, places to push to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query

from evomerge.service.http.callers import API, Viewer
from evomerge.service.http.here import Here
from evomerge.service.http.problems import responses
from evomerge.service.http.record_models import (
    FoundHub,
    FoundMethod,
    FoundModel,
    FoundSpace,
    FoundTask,
    FoundTracker,
)
from evomerge.service.queue.trackers import free_names

router = APIRouter(prefix=API, tags=["found"])

READING = responses(401, 421, 422, 429, 503)

_LEVELS = 4
_MOST = 1000
_CONFIG_BYTES = 2**20


@router.get("/models", summary="Models", responses=READING)
def list_models(
    caller: Viewer,
    here: Here,
    q: Annotated[str, Query(max_length=200, description="Part of the reference.")] = "",
) -> list[FoundModel]:
    """Checkpoints and adapters in the folders that the operator allows.

    A reference is as a job names it: the path inside such a folder, or the whole path where an
    earlier folder has the same.
    """
    found: dict[str, FoundModel] = {}
    for folder in here.settings.source_folders:
        for path, model in _models_in(folder, _LEVELS):
            inside = path.relative_to(folder).as_posix()
            name = str(path) if inside in found or inside == "." else inside
            if q.lower() in name.lower():
                found[name] = model.model_copy(update={"reference": name})
            if len(found) == _MOST:
                return list(found.values())
    return list(found.values())


@router.get("/tasks", summary="Tasks", responses=READING)
def list_tasks(
    caller: Viewer,
    here: Here,
    q: Annotated[str, Query(max_length=200, description="Part of the name.")] = "",
    every: Annotated[
        bool, Query(alias="all", description="Also lm-eval's own names, some ten thousand.")
    ] = False,
) -> list[FoundTask]:
    """Tasks, groups and tags that an objective may name, with their metrics."""
    from evomerge.api import found_tasks

    shared = [folder.resolve() for folder in here.settings.task_folders if folder.is_dir()]
    # A task made for one project may have the name of one that was made for another.
    made = []
    for project, name in sorted(here.project_names().items(), key=lambda each: each[1]):
        folder = here.settings.made_tasks(project)
        if (caller.scope is None or project in caller.scope) and folder.is_dir():
            listed = _in_folders(found_tasks([folder], part=q), [folder.resolve()])
            made += [{**task, "project": name} for task in listed if task["folder"]]
    found = _in_folders(found_tasks(shared, part=q, every=every), shared)
    rest = [task for task in found if not task["folder"]]
    listed = [*(task for task in found if task["folder"]), *made, *rest]
    return [FoundTask.model_validate(task) for task in listed]


def _in_folders(
    tasks: Iterable[Mapping[str, Any]], folders: Sequence[Path]
) -> list[dict[str, Any]]:
    """The tasks with the folder that has each one's file; None for one that is found without."""
    listed = []
    for task in tasks:
        file = Path(task["file"]).resolve() if "file" in task else None
        inside = (str(each) for each in folders if file and file.is_relative_to(each))
        listed.append({**task, "folder": next(inside, None)})
    return listed


@router.get("/spaces", summary="Search spaces", responses=responses(401, 421, 429, 503))
def list_spaces(caller: Viewer) -> list[FoundSpace]:
    """Search spaces that ship with evomerge, from the fewest genes to the most."""
    from evomerge.api import found_spaces

    return [FoundSpace.model_validate(space) for space in found_spaces()]


@router.get("/methods", summary="Merge methods", responses=responses(401, 421, 429, 503))
def list_methods(caller: Viewer) -> list[FoundMethod]:
    """Merge methods: what they compute, when to use them, and whether they can be searched."""
    from evomerge.api import found_methods

    return [FoundMethod.model_validate(method) for method in found_methods()]


@router.get("/trackers", summary="Trackers", responses=responses(401, 421, 429, 503))
def list_trackers(caller: Viewer, here: Here) -> list[FoundTracker]:
    """Trackers in which a search or a grid may be shown; what the operator has set is not told."""
    settings = here.settings
    return [
        FoundTracker(name=name, options=list(free_names(name, settings)))
        for name in settings.trackers
    ]


@router.get("/hub", summary="The hub", responses=responses(401, 421, 429, 503))
def show_hub(caller: Viewer, here: Here) -> FoundHub:
    """Organisations of the hub to whose repositories an export may be pushed."""
    settings = here.settings
    return FoundHub(organisations=list(settings.push_organisations), public=settings.public_push)


def _models_in(folder: Path, levels: int) -> Iterator[tuple[Path, FoundModel]]:
    """Models in a folder and the folders below it; links are not followed."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    names = {entry.name: entry for entry in entries}
    if "config.json" in names or "adapter_config.json" in names:
        yield folder, _described(folder, names)
        return
    if levels:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from _models_in(Path(entry.path), levels - 1)


def _described(folder: Path, names: dict[str, os.DirEntry[str]]) -> FoundModel:
    config: Any = None
    if "config.json" in names:
        try:
            if names["config.json"].stat().st_size <= _CONFIG_BYTES:
                config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            config = None
    listed = config.get("architectures") if isinstance(config, dict) else None
    weights = [entry for name, entry in names.items() if name.endswith(".safetensors")]
    return FoundModel(
        reference=str(folder),
        architecture=str(listed[0]) if isinstance(listed, list) and listed else None,
        adapter="adapter_config.json" in names,
        size_bytes=sum(entry.stat().st_size for entry in weights),
    )
