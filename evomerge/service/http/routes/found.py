"""What a job may name here: models, tasks, search spaces, merge methods."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query

from evomerge.service.http.callers import API, Viewer
from evomerge.service.http.here import Here
from evomerge.service.http.problems import responses
from evomerge.service.http.record_models import FoundMethod, FoundModel, FoundSpace, FoundTask

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

    projects = here.project_names() if caller.scope is None else caller.scope
    made = [here.settings.made_tasks(project) for project in sorted(projects)]
    folders = [folder.resolve() for folder in (*here.settings.task_folders, *made)]
    folders = [folder for folder in folders if folder.is_dir()]
    return [
        FoundTask.model_validate({**task, "folder": _folder_of(task, folders)})
        for task in found_tasks(folders, part=q, every=every)
    ]


def _folder_of(task: Mapping[str, Any], folders: Sequence[Path]) -> str | None:
    """The operator's folder with a task's file; None for a task that is found without one."""
    file = Path(task["file"]).resolve() if "file" in task else None
    return next((str(each) for each in folders if file and file.is_relative_to(each)), None)


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
        except (OSError, ValueError):
            config = None
    listed = config.get("architectures") if isinstance(config, dict) else None
    weights = [entry for name, entry in names.items() if name.endswith(".safetensors")]
    return FoundModel(
        reference=str(folder),
        architecture=str(listed[0]) if isinstance(listed, list) and listed else None,
        adapter="adapter_config.json" in names,
        size_bytes=sum(entry.stat().st_size for entry in weights),
    )
