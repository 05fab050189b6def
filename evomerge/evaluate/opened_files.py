"""Files that a task's code reads beyond its own folder: modules, includes, word lists.

Python tells of every file that it opens, so what is counted is what was opened while the task was
loaded and asked and its answers scored, not what its text seems to name. Rows that `datasets` reads
are left out, for the items are hashed themselves; so are installed packages, which have versions.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import site
import sys
import sysconfig
import threading
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lm_eval.api.task import Task

WRITTEN = "written by the task"
"""Stands in the place of the hash of a file that the task itself writes, such as a cache."""

_LARGEST_BYTES = 64 * 2**20
_WRITES = os.O_WRONLY | os.O_RDWR
_ROWS = ("datasets.", "huggingface_hub.", "evomerge.evaluate.public_data.")
"""Packages and modules whose reading shows in the items."""

_SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/", "/lib/", "/run/")


@dataclass(kw_only=True)
class Opened:
    """What the threads of a task opened, as absolute paths."""

    read: set[Path] = field(default_factory=set)
    written: set[Path] = field(default_factory=set)
    started_before: frozenset[int] = frozenset()
    """Threads of others."""

    def copy(self) -> Opened:
        """The same files, to which more may come."""
        return Opened(read=set(self.read), written=set(self.written))

    @property
    def count(self) -> int:
        """How many files these are."""
        return len(self.read) + len(self.written)


@dataclass(frozen=True, kw_only=True)
class OpenedFile:
    """A file that a task's code opened. place: relative to `root`, the task's folder's parent."""

    sha256: str
    root: str
    place: str


@dataclass(frozen=True, kw_only=True)
class WatchedTask:
    """A task whose code is listened to. functions: those that it is made of."""

    file: Path
    opened: Opened
    functions: Sequence[object]

    def files(self) -> dict[str, OpenedFile]:
        """Name -> file that was opened until now."""
        root = root_of(self.file)
        found = find_opened(self.opened, self.file, functions=self.functions)
        return {
            name: OpenedFile(
                sha256=hash_opened(path, self.opened),
                root=str(root),
                place=os.path.relpath(path, root),
            )
            for name, path in found.items()
        }


_watching: list[Opened] = []
_installed = False
_of_tasks: dict[Path, Opened] = {}
"""Task file -> what it opened in this process: a module is read but once."""


def opened_in_loading(task_file: Path) -> Opened:
    """What a task has opened whenever it was loaded in this process."""
    return _of_tasks.setdefault(task_file, Opened())


@contextlib.contextmanager
def listen(opened: Opened) -> Iterator[None]:
    """Keep what is opened by this thread and those that it starts."""
    global _installed
    if not _installed:
        sys.addaudithook(_hear)  # there is no way to take it away again
        _installed = True
    mine = threading.get_ident()
    opened.started_before = frozenset(
        thread.ident for thread in threading.enumerate() if thread.ident not in (None, mine)
    )
    _watching.append(opened)
    try:
        yield
    finally:
        _watching.remove(opened)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or event not in ("open", "sqlite3.connect"):
        return
    try:
        _keep(*arguments if event == "open" else (arguments[0], "r", 0))
    except Exception:  # What is raised here would fail the opening itself.
        return


def _keep(named: object, mode: str | None, flags: int) -> None:
    if not isinstance(named, (str, bytes, os.PathLike)):
        return
    here = threading.get_ident()
    watching = [opened for opened in _watching if here not in opened.started_before]
    if not watching:
        return
    path = Path(os.path.abspath(os.fsdecode(named)))
    writes = bool(set(mode) & set("wax+")) if mode is not None else bool(flags & _WRITES)
    if not writes and _reads_rows(sys._getframe(2)):
        return
    for opened in watching:
        (opened.written if writes else opened.read).add(path)


def _reads_rows(frame: types.FrameType | None) -> bool:
    while frame is not None:
        if f"{frame.f_globals.get('__name__')}.".startswith(_ROWS):
            return True
        frame = frame.f_back
    return False


def find_opened(
    opened: Opened, task_file: Path, *, functions: Iterable[object]
) -> Mapping[str, Path]:
    """Name -> file that was opened, those of the functions' modules too.

    A name is the file's own below the task's folder's parent, else its last two parts, so that it
    does not change when all of it is moved; of two that would share a name each has its whole path.
    """
    root = root_of(task_file)
    paths = {_source(path) for path in opened.read | opened.written} | _modules(functions)
    found = {path.resolve() for path in paths if path.is_file()}
    named: dict[str, list[Path]] = {}
    for path in sorted(path for path in found if _counts(path, root)):
        named.setdefault(_name(path, root), []).append(path)
    return {
        name if len(same) == 1 else str(path): path for name, same in named.items() for path in same
    }


def root_of(task_file: Path) -> Path:
    """What places of files are relative to: the parent of the task's folder."""
    return task_file.resolve().parent.parent


def hash_opened(path: Path, opened: Opened | None = None) -> str:
    """sha256 of a file, or that the task writes it."""
    if opened is not None and path in {written.resolve() for written in opened.written}:
        return WRITTEN
    size = path.stat().st_size
    return (
        f"size:{size}" if size > _LARGEST_BYTES else hashlib.sha256(path.read_bytes()).hexdigest()
    )


def functions_of(task: Task) -> list[object]:
    """The functions and classes that a task is made of, wherever its configuration names them."""
    found: list[object] = [type(task), *getattr(task, "_metric_fn_list", {}).values()]
    waiting: list[object] = [vars(part) for part in _parts(task)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
        elif callable(value):
            found.append(value)
    return found


def _parts(task: Task) -> list[object]:
    parts = (getattr(task, "config", None), getattr(task, "fewshot_cfg", None))
    return [part for part in parts if hasattr(part, "__dict__")]


def _source(path: Path) -> Path:
    """A module's text in the place of what Python compiled of it."""
    if path.parent.name != "__pycache__":
        return path
    try:
        return Path(importlib.util.source_from_cache(path))
    except ValueError:
        return path


def _modules(functions: Iterable[object]) -> set[Path]:
    """Files of the modules that functions are of, and of those that these have taken names from."""
    waiting: list[object] = list(functions)
    seen: set[int] = set()
    files: set[Path] = set()
    while waiting:
        scope = _scope(waiting.pop())
        if scope is None or id(scope) in seen:
            continue
        seen.add(id(scope))
        file = scope.get("__file__")
        if not isinstance(file, str) or _installed_path(Path(os.path.abspath(file))):
            continue
        files.add(_source(Path(os.path.abspath(file))))
        waiting.extend(scope.values())
    return files


def _scope(value: object) -> dict[str, Any] | None:
    """The names of the module that something is, or is of."""
    if isinstance(value, types.ModuleType):
        return vars(value)
    value = getattr(value, "func", value)  # of a partial
    scope = getattr(value, "__globals__", None)
    if isinstance(scope, dict):
        return scope
    kind = value if isinstance(value, type) else type(value)
    module = sys.modules.get(str(getattr(kind, "__module__", None)))
    return None if module is None else vars(module)


def _counts(path: Path, root: Path) -> bool:
    if _installed_path(path):
        return False
    if path.is_relative_to(root):
        parts: tuple[str, ...] = path.relative_to(root).parts
        return not any(part.startswith(".") or part == "__pycache__" for part in parts)
    hidden = any(part.startswith(".") for part in path.parts)
    # Folders of caches and settings; metrics that `evaluate` fetches are modules in one.
    return not str(path).startswith(_SYSTEM) and (not hidden or path.suffix == ".py")


def _name(path: Path, root: Path) -> str:
    return (
        path.relative_to(root).as_posix()
        if path.is_relative_to(root)
        else "/".join(path.parts[-2:])
    )


def _installed_path(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in _libraries(tuple(sys.path)))


@functools.cache
def _libraries(search_path: tuple[str, ...]) -> tuple[Path, ...]:
    """Python's own files, installed packages, and evomerge itself but for the tasks it ships.

    search_path: clusters have packages in folders that PYTHONPATH names, with their versions beside
    them as an installer wrote them.
    """
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    package = Path(__file__).parent.parent
    found = [*map(sysconfig.get_path, names), *site.getsitepackages(), site.getusersitepackages()]
    found += [folder for folder in search_path if folder and any(Path(folder).glob("*.dist-info"))]
    folders = {Path(folder) for folder in found} | {
        package / part.name for part in package.iterdir() if part.name != "_shipped"
    }
    return tuple({path for folder in folders for path in (folder, folder.resolve())})
