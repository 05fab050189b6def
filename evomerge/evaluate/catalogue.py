"""Finds lm-eval tasks by name, and hashes the files that define them.

A name is searched in the folders of the user, then in the shipped `evals/`, then among lm-eval's
own tasks. The index of those takes seconds, so it is read only for a name not found before. Task
files are code, so nothing outside these places is ever loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from evomerge.errors import TaskError, one_line
from evomerge.evaluate.groups import FindManager, Members, members_of, tasks_of
from evomerge.evaluate.seeds import quiet_lm_eval, stock_seeds
from evomerge.evaluate.task_files import (
    check_folders,
    check_member,
    check_names,
    included,
    read_task_file,
    unknown_task,
    yaml_files,
)
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
        check_folders(folders)
        self._users = tuple(folders)
        self._local = [
            *(TaskManager(include_defaults=False, include_path=str(folder)) for folder in folders),
            _shipped_tasks(),
        ]

    @property
    def _own(self) -> TaskManager:
        return _own_tasks()

    def find(self, name: str) -> FoundTask:
        """Load the task of this name.

        Raises TaskError for a group (with its members), an unknown name (with the nearest ones),
        and a task whose files or data cannot be loaded.
        """
        manager = self._manager_of(name)
        return self._load(manager, name, own=manager not in self._local)

    def members_of(self, name: str, metric: str) -> Members | None:
        """The tasks of a group or a tag, and how its file weighs them; None for a task.

        metric: as a job names it. Raises TaskError.
        """
        return members_of(self._finder(name), name, metric)

    def tasks_of(self, name: str) -> tuple[str, ...]:
        """The tasks of a group or a tag, each once, or the task of this name. Raises TaskError."""
        return tasks_of(self._finder(name), name)

    def _finder(self, name: str) -> FindManager:
        """Finds members of the group of this name: in all folders, as the group itself."""
        home = self._manager_of(name)

        def find(member: str) -> TaskManager:
            nearest = next((m for m in (*self._local, home) if member in m.task_index), None)
            if nearest is None:
                check_member(member, self._users)
            return nearest or self._manager_of(member)

        return find

    def file_of(self, name: str) -> Path:
        """The YAML that defines the task of this name; Path() if none does. Raises TaskError."""
        file = self._manager_of(name).task_index[name].yaml_path
        return Path(file) if file else Path()

    def _manager_of(self, name: str) -> TaskManager:
        for manager in self._local:
            if name in manager.task_index:
                return manager
        for folder in self._users:
            _say_why_left_out(name, folder)
        check_names([name], self._users)
        # lm-eval takes seconds to list its own tasks, so all other answers come first.
        if name in self._own.task_index:
            return self._own
        raise unknown_task(name, self._users)

    def _load(self, manager: TaskManager, name: str, *, own: bool) -> FoundTask:
        entry = manager.task_index[name]
        if name in manager.all_groups or name in manager.all_tags:
            members = _leaves(manager, name)
            shown = ", ".join(members[:_SHOWN_NAMES])
            more = f" and {len(members) - _SHOWN_NAMES} more" if len(members) > _SHOWN_NAMES else ""
            raise TaskError(
                f"task {name}: a group of tasks; name the members you want: {shown}{more}"
            )
        path = Path(entry.yaml_path) if entry.yaml_path else None
        try:
            task = manager.load([name])["tasks"][name]
        except (Exception, SystemExit) as error:  # Task files are code and may raise anything.
            raise TaskError(f"task {name}: {_why(error)}; check {path or 'its file'}") from error
        return FoundTask(name=name, task=task, path=path, own=own)


def find_members(name: str, metric: str, folders: Sequence[Path]) -> Members | None:
    """The tasks of a group or a tag, and how they weigh; None for a task. Raises TaskError."""
    with stock_seeds(), quiet_lm_eval():
        return TaskCatalogue(folders).members_of(name, metric)


def find_tasks(name: str, folders: Sequence[Path]) -> tuple[str, ...]:
    """The tasks of a group or a tag, each once, or the task of this name. Raises TaskError."""
    with stock_seeds(), quiet_lm_eval():
        return TaskCatalogue(folders).tasks_of(name)


@cache
def _shipped_tasks() -> TaskManager:
    """The tasks that come with this package; their files do not change while it runs."""
    return TaskManager(include_defaults=False, include_path=str(shipped_folder("evals")))


@cache
def _own_tasks() -> TaskManager:
    """lm-eval's own tasks; reading their files takes seconds."""
    return TaskManager()


_UNREACHED = frozenset(
    {
        "ConnectionError",
        "ConnectError",
        "ConnectTimeout",
        "LocalEntryNotFoundError",
        "OfflineModeIsEnabled",
    }
)
"""Names of the hub clients' errors when the hub cannot be reached and nothing is cached."""


def _why(error: BaseException) -> str:
    """Why a task cannot be loaded; in plain words where the library's message says little."""
    chain: list[BaseException] = [error]
    while (earlier := chain[-1].__cause__ or chain[-1].__context__) and earlier not in chain:
        chain.append(earlier)
    empty = "corresponds to no data" in str(error) or "out of bounds for size 0" in str(error)
    if isinstance(error, StopIteration) or empty:
        return "its data hold no documents; put some into the file that its YAML names"
    if not _UNREACHED.isdisjoint(type(cause).__name__ for cause in chain):
        return (
            f"its data set is not on this machine and the hub cannot be reached "
            f"({one_line(error)}); download it first, or set HF_HOME to a cache that has it"
        )
    if type(error).__name__ == "DatasetGenerationError" and error.__cause__ is not None:
        return f"its data cannot be read ({one_line(error.__cause__)}); mend the data"
    return f"cannot be loaded ({one_line(f'{type(error).__name__}: {error}')})"


def _say_why_left_out(name: str, folder: Path) -> None:
    """Raise TaskError if a file in the folder names the task but lm-eval left it out."""
    for path in yaml_files(folder):
        document = read_task_file(path) or {}
        if document.get("task") != name:
            continue
        if "group" in document:
            raise TaskError(
                f"task {name}: {path} has both task and group, so lm-eval reads it as a group; "
                "write `tag` for `group`"
            )
        try:
            load_yaml(path, resolve_func=False)
        except Exception as error:  # lm-eval's loader raises many kinds of errors
            raise TaskError(f"task {name}: {_why(error)}; check {path}") from error


def _leaves(manager: TaskManager, name: str) -> list[str]:
    """The tasks of a group, and of the groups and tags in it, each once."""
    found: dict[str, None] = {}
    waiting, seen = [name], {name}
    while waiting:
        entry = manager.task_index.get(waiting.pop(0))
        members = sorted(entry.tags) or _members(entry.cfg or {}) if entry is not None else []
        for member in members:
            if member in seen:
                continue
            seen.add(member)
            if member in manager.all_groups or member in manager.all_tags:
                waiting.append(member)
            else:
                found[member] = None
    return list(found)


def _members(config: Mapping[str, object]) -> list[str]:
    """What a group's file lists: names, and mappings that name a task or hold a group."""
    listed = config.get("task")
    names = []
    for member in listed if isinstance(listed, list) else [listed]:
        if isinstance(member, dict) and isinstance(member.get("task"), list):
            names.extend(_members(member))
        else:
            known = member if isinstance(member, dict) else {"task": member}
            names.append(str(known.get("task") or known.get("group")))
    return names


def hash_files(found: FoundTask) -> dict[str, str]:
    """sha256 of each file that defines a task, by a path relative to its folder's parent.

    For a task of the user: its YAML, the files it includes, and the rest of its folder (modules,
    data). Hidden files and .md files are left out. At most 1,000 files count, and only the size of
    a file that is larger than 64 MiB. For one of lm-eval's own tasks: its YAML, and lm-eval's
    version under `lm_eval`.
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
    """YAML files that a task file includes, directly or through others."""
    waiting, seen = [path], {path}
    while waiting:
        current = waiting.pop()
        for include in included(current, read_task_file(current) or {}):
            if include not in seen:
                seen.add(include)
                waiting.append(include)
    return seen - {path}


def _relative(path: Path, root: Path | None = None) -> str:
    """A name of the file that stays the same when its folder is moved."""
    for base in (root, path.parent.parent):
        if base is not None and path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return path.name


def _hash(path: Path) -> str:
    size = path.stat().st_size
    if size > _LARGEST_BYTES:
        return f"size:{size}"
    return hashlib.sha256(path.read_bytes()).hexdigest()
