"""Records the files that a task's code reads outside its own folder, such as modules and includes.

Python reports every file that it opens. So the record holds the files that were really opened while
the task was loaded, its prompts were built and its answers were scored. Rows that `datasets` reads
are left out, because the items are hashed themselves. Installed packages are left out too, because
they have versions.
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
"""Takes the place of the hash of a file that the task itself writes, for example a cache."""

_LARGEST_BYTES = 64 * 2**20
_WRITES = os.O_WRONLY | os.O_RDWR
_ROWS = ("datasets.", "huggingface_hub.", "evomerge.evaluate.public_data.")
"""Packages and modules that read items. The items are hashed, so the files they read need no hash.
"""

_SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/", "/lib/", "/run/")


@dataclass(kw_only=True)
class Opened:
    """Files that the threads of a task opened, as absolute paths."""

    read: set[Path] = field(default_factory=set)
    written: set[Path] = field(default_factory=set)
    started_before: frozenset[int] = frozenset()
    """Threads of other work: they were running before listening began."""

    def copy(self) -> Opened:
        """A copy that later openings do not change."""
        return Opened(read=set(self.read), written=set(self.written))

    @property
    def count(self) -> int:
        """The number of these files."""
        return len(self.read) + len(self.written)


@dataclass(frozen=True, kw_only=True)
class OpenedFile:
    """A file that a task's code opened.

    root: the parent of the task's folder. place: the file's path relative to `root`.
    """

    sha256: str
    root: str
    place: str


@dataclass(frozen=True, kw_only=True)
class WatchedTask:
    """A task, with the files that its code opens.

    functions: the functions and classes that the task is made of.
    """

    file: Path
    opened: Opened
    functions: Sequence[object]

    def files(self) -> dict[str, OpenedFile]:
        """The files that were opened until now, by name."""
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
"""Task file -> what it opened in this process. It is kept, because Python reads a module only once.
"""


def opened_in_loading(task_file: Path) -> Opened:
    """The files that a task has opened in all its loads in this process."""
    return _of_tasks.setdefault(task_file, Opened())


@contextlib.contextmanager
def listen(opened: Opened) -> Iterator[None]:
    """Within, record the files that are opened by this thread and by threads that it starts."""
    global _installed
    if not _installed:
        sys.addaudithook(_on_event)  # an audit hook cannot be removed
        _installed = True
    this_thread = threading.get_ident()
    opened.started_before = frozenset(
        thread.ident for thread in threading.enumerate() if thread.ident not in (None, this_thread)
    )
    _watching.append(opened)
    try:
        yield
    finally:
        _watching.remove(opened)


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or event not in ("open", "sqlite3.connect"):
        return
    try:
        _record(*arguments if event == "open" else (arguments[0], "r", 0))
    except Exception:  # An error here would make the opening itself fail.
        return


def _record(file: object, mode: str | None, flags: int) -> None:
    if not isinstance(file, (str, bytes, os.PathLike)):
        return
    this_thread = threading.get_ident()
    watching = [opened for opened in _watching if this_thread not in opened.started_before]
    if not watching:
        return
    path = Path(os.path.abspath(os.fsdecode(file)))
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
    """The files that were opened, and those of the functions' modules, by name.

    A file below the parent of the task's folder is named by its path relative to that parent, any
    other file by the last two parts of its path. So names stay the same when the folders are moved.
    Files that would share a name are named by their whole path.
    """
    root = root_of(task_file)
    paths = {_source(path) for path in opened.read | opened.written} | _modules(functions)
    found = {path.resolve() for path in paths if path.is_file()}
    by_name: dict[str, list[Path]] = {}
    for path in sorted(path for path in found if _counts(path, root)):
        by_name.setdefault(_name(path, root), []).append(path)
    return {
        name if len(same) == 1 else str(path): path
        for name, same in by_name.items()
        for path in same
    }


def root_of(task_file: Path) -> Path:
    """The parent of the task's folder; places of files are relative to it."""
    return task_file.resolve().parent.parent


def hash_opened(path: Path, opened: Opened | None = None) -> str:
    """sha256 of a file, the size of a large one, or WRITTEN for one that the task writes."""
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
    """The source file of a compiled module; any other path as it is."""
    if path.parent.name != "__pycache__":
        return path
    try:
        return Path(importlib.util.source_from_cache(path))
    except ValueError:
        return path


def _modules(functions: Iterable[object]) -> set[Path]:
    """Files of the functions' modules, and of modules that these take names from."""
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
    """The names in a module, or in the module where a function, class or object is defined."""
    if isinstance(value, types.ModuleType):
        return vars(value)
    value = getattr(value, "func", value)  # a functools.partial wraps it
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
    # Hidden folders hold caches and settings, but also the metrics that `evaluate` downloads.
    return not str(path).startswith(_SYSTEM) and (not hidden or path.suffix == ".py")


def _name(path: Path, root: Path) -> str:
    return (
        path.relative_to(root).as_posix()
        if path.is_relative_to(root)
        else "/".join(path.parts[-2:])
    )


def _installed_path(path: Path) -> bool:
    # Called for every module that a task's code reaches; comparing paths takes ten times as long.
    return f"{path}{os.sep}".startswith(_libraries(tuple(sys.path)))


@functools.cache
def _libraries(search_path: tuple[str, ...]) -> tuple[str, ...]:
    """Folders of Python, of installed packages, and of evomerge except for the tasks it ships.

    Each ends with a separator. search_path: of modules. On clusters, PYTHONPATH may name folders of
    installed packages; an installer writes their versions beside them.
    """
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    package = Path(__file__).parent.parent
    found = [*map(sysconfig.get_path, names), *site.getsitepackages(), site.getusersitepackages()]
    found += [folder for folder in search_path if folder and any(Path(folder).glob("*.dist-info"))]
    folders = {Path(folder) for folder in found} | {
        package / part.name for part in package.iterdir() if part.name != "_shipped"
    }
    return tuple({f"{path}{os.sep}" for each in folders for path in (each, each.resolve())})
