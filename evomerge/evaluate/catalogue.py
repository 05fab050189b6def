"""Finding lm-eval tasks by name, and hashing the files that define them.

A name is looked for in the folders the user named, then in the shipped `evals/`, then among
lm-eval's own tasks, whose index takes seconds and is read only for a name not found before. Task
files are code, so nothing outside these places is ever loaded.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import yaml
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager

from evomerge.errors import TaskError, one_line
from evomerge.job import shipped_folder

_MOST_FILES = 1000
_LARGEST_BYTES = 64 * 2**20
_SHOWN_NAMES = 12


@dataclass(frozen=True, kw_only=True)
class FoundTask:
    """A task as lm-eval loaded it. path: its YAML; own: whether it is one of lm-eval's own."""

    name: str
    task: Task
    path: Path | None
    own: bool


class TaskCatalogue:
    """Tasks of the user's folders, the shipped ones and lm-eval's own, in that order."""

    def __init__(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            if not folder.is_dir():
                raise TaskError(f"evaluation.task_folders: {folder} is no folder; check the path")
        self._folders = [*folders, shipped_folder("evals")]
        self._local = [
            TaskManager(include_defaults=False, include_path=str(folder))
            for folder in self._folders
        ]

    @cached_property
    def _own(self) -> TaskManager:
        return TaskManager()

    def find(self, name: str) -> FoundTask:
        """Load the task of this name.

        Raises TaskError for a group (with its members), an unknown name (with the nearest ones),
        and a task whose files or data cannot be loaded.
        """
        for manager in self._local:
            if name in manager.task_index:
                return self._load(manager, name, own=False)
        if name in self._own.task_index:
            return self._load(self._own, name, own=True)
        known = {known for manager in (*self._local, self._own) for known in manager.all_tasks}
        nearest = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.6)
        broken = self._unreadable()
        if nearest:
            mend = f"did you mean {', '.join(nearest)}?"
        elif broken:
            mend = f"{broken} is not readable YAML; mend it if the task is there"
        else:
            mend = "check the name, or name its folder in evaluation.task_folders"
        raise TaskError(f"task {name}: unknown; {mend}")

    def _load(self, manager: TaskManager, name: str, *, own: bool) -> FoundTask:
        entry = manager.task_index[name]
        if name in manager.all_groups or name in manager.all_tags:
            members = sorted(entry.tags) or _members(entry.cfg or {})
            shown = ", ".join(members[:_SHOWN_NAMES])
            more = f" and {len(members) - _SHOWN_NAMES} more" if len(members) > _SHOWN_NAMES else ""
            raise TaskError(
                f"task {name}: a group of tasks; name the members you want: {shown}{more}"
            )
        path = Path(entry.yaml_path) if entry.yaml_path else None
        try:
            task = manager.load([name])["tasks"][name]
        except (Exception, SystemExit) as error:  # Task files are code: anything can come of them.
            reason = one_line(f"{type(error).__name__}: {error}")
            raise TaskError(
                f"task {name}: cannot be loaded ({reason}); check {path or 'its file'}"
            ) from error
        return FoundTask(name=name, task=task, path=path, own=own)

    def _unreadable(self) -> Path | None:
        """The first YAML file of the user's folders that is none: lm-eval skips it silently."""
        for folder in self._folders[:-1]:
            for path in sorted(folder.rglob("*.yaml")):
                if _read_yaml(path) is None:
                    return path
        return None


def _members(config: Mapping[str, object]) -> list[str]:
    listed = config.get("task")
    names = []
    for member in listed if isinstance(listed, list) else [listed]:
        named = member.get("task") or member.get("group") if isinstance(member, dict) else member
        names.append(str(named))
    return names


def hash_files(found: FoundTask) -> dict[str, str]:
    """sha256 of each file that defines a task, by a path relative to its folder's parent.

    A task of the user's: its YAML, what that includes, and the rest of its folder (modules, data),
    hidden files and .md left out, up to 1,000 files of up to 64 MiB each; larger files are told
    apart by their size. One of lm-eval's own: its YAML, and lm-eval's version under `lm_eval`.
    """
    if found.path is None:
        return {"lm_eval": version("lm_eval")}
    if found.own:
        return {_relative(found.path): _hash(found.path), "lm_eval": version("lm_eval")}
    paths = {found.path, *_includes(found.path)}
    beside = (
        path for path in sorted(found.path.parent.rglob("*")) if _is_content(path, found.path)
    )
    for path, _ in zip(beside, range(_MOST_FILES), strict=False):
        paths.add(path)
    root = found.path.parent.parent
    return {_relative(path, root): _hash(path) for path in sorted(paths)}


def _is_content(path: Path, task_file: Path) -> bool:
    parts = path.relative_to(task_file.parent).parts
    hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
    return path.is_file() and not hidden and path.suffix != ".md"


def _includes(path: Path) -> Iterable[Path]:
    """YAML files that a task file includes, those they include too."""
    waiting, seen = [path], {path}
    while waiting:
        current = waiting.pop()
        listed = (_read_yaml(current) or {}).get("include") or []
        for name in listed if isinstance(listed, list) else [listed]:
            included = (current.parent / str(name)).resolve()
            if included.is_file() and included not in seen:
                seen.add(included)
                waiting.append(included)
    return seen - {path}


class _PlainLoader(yaml.SafeLoader):
    """Reads task files as data: `!function` and other tags become their text."""


_PlainLoader.add_multi_constructor("!", lambda _loader, _tag, node: str(node.value))


def _read_yaml(path: Path) -> dict[str, object] | None:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return document if isinstance(document, dict) else None


def _relative(path: Path, root: Path | None = None) -> str:
    """A name that is the same wherever the folder lies."""
    for base in (root, path.parent.parent):
        if base is not None and path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return path.name


def _hash(path: Path) -> str:
    size = path.stat().st_size
    if size > _LARGEST_BYTES:
        return f"size:{size}"
    return hashlib.sha256(path.read_bytes()).hexdigest()
