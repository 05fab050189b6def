"""The tasks that were made of uploads: folders of the data folder, each with a note of its origin.

A task holds its own copy of the items, so an upload can be deleted and its tasks stay.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evomerge.service.settings import ServiceSettings
from evomerge.service.store.job import Job

NOTE = "made.json"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_MOST_BYTES = 2**20


def is_name(text: str) -> bool:
    """Whether a task can have this name."""
    return _NAME.fullmatch(text) is not None


def write_note(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write down in the folder of a task what it was made of."""
    text = json.dumps(dict(facts), indent=2, sort_keys=True)
    (folder / NOTE).write_text(text + "\n", encoding="utf-8")


def all_of(settings: ServiceSettings, project: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folder and note of every task of a project, by name; the note of an older one is empty."""
    try:
        entries = sorted(os.scandir(settings.made_tasks(project)), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if is_name(entry.name) and entry.is_dir(follow_symlinks=False):
            yield Path(entry.path), _note(Path(entry.path) / NOTE)


def origins(settings: ServiceSettings, projects: Iterable[str]) -> dict[str, list[str]]:
    """Id of an upload -> names of the tasks that were made of it."""
    found: dict[str, list[str]] = {}
    for project in projects:
        for folder, note in all_of(settings, project):
            found.setdefault(str(note.get("upload")), []).append(folder.name)
    return found


def users(settings: ServiceSettings, project: str, name: str, jobs: Iterable[Job]) -> list[str]:
    """Ids of those jobs that read a task: they name its folder, or one above it and its name."""
    folder = settings.made_tasks(project).resolve() / name
    found = []
    for job in jobs:
        texts = set(_texts(job.request))
        named = {Path(text) for text in texts if text.startswith("/")}
        if folder in named or (name in texts and named & set(folder.parents)):
            found.append(job.id)
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _note(file: Path) -> dict[str, Any]:
    try:
        with file.open(encoding="utf-8") as opened:
            note = json.loads(opened.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}
