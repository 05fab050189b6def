"""Reads the YAML files of tasks as text: whether they may be loaded, and which names they hold.

lm-eval takes seconds to import, and a few lines of YAML can hang or crash its loader. Nothing here
needs lm-eval, so a wrong name is reported at once.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import yaml

from evomerge.documents import check_bounds, load_bytes
from evomerge.errors import TaskError
from evomerge.job import shipped_folder

_LARGEST_BYTES = 2 * 2**20
_NAMES = re.compile(rb"^(?:task|group|tag):[ \t]*[\"']?([^\s\"'#\[{]+)", re.MULTILINE)


def check_names(tasks: Iterable[str], folders: Sequence[Path]) -> None:
    """Refuse task folders that cannot be loaded, and names that no task file holds.

    folders: those of the user. A name that some file holds may still be no task; lm-eval reports
    that when it loads the name. Raises TaskError in one line.
    """
    check_folders(folders)
    local = b"\0".join(_contents([*folders, shipped_folder("evals")]))
    names = dict.fromkeys(tasks)
    missing = [name for name in names if not name or name.encode() not in local]
    own = b"\0".join(_contents([own_folder()])) if missing else b""
    for name in missing:
        if not name or name.encode() not in own:
            raise unknown_task(name, folders, b"\n".join((local, own)))


def is_taken(name: str) -> bool:
    """Whether a task, group or tag that evomerge ships or that is lm-eval's own has this name."""
    return name.encode() in _names_taken()


@functools.cache
def _names_taken() -> frozenset[bytes]:
    contents = _contents([shipped_folder("evals"), own_folder()])
    return frozenset(name for content in contents for name in _NAMES.findall(content))


def check_member(name: str, folders: Sequence[Path]) -> None:
    """Raise TaskError if no file of lm-eval's own has a name that a group of `folders` lists."""
    if not name or name.encode() not in b"\0".join(_contents([own_folder()])):
        raise unknown_task(name, folders)


def check_folders(folders: Iterable[Path], *, where: str = "evaluation.task_folders") -> None:
    """Raise TaskError for a path that is no folder, or has a YAML file that must not be loaded.

    where: what named the folders.
    """
    for folder in folders:
        if not os.path.isdir(folder):
            raise TaskError(f"{where}: {folder} is no folder; check the path")
        for path in yaml_files(folder):
            _check_file(path)


def _check_file(first: Path) -> None:
    """Check that a file and its includes are regular files within the bounds of documents."""
    waiting, seen = [first], {first}
    while waiting:
        path = waiting.pop()
        content = load_bytes(path, kind="a task", limit_bytes=_LARGEST_BYTES, error=TaskError)
        text = content.decode("utf-8", errors="replace")
        check_bounds(text, where=str(path), error=TaskError)
        includes = included(path, read_task_file(path) or {}) if "include" in text else []
        waiting.extend(include for include in includes if include not in seen)
        seen.update(includes)


def unknown_task(
    name: str,
    folders: Sequence[Path],
    contents: bytes | None = None,
    *,
    where: str = "in evaluation.task_folders",
) -> TaskError:
    """The error for a name that is no task: it tells the nearest names, or where to look.

    contents: of all task files, if they are read already. where: how the user names a folder.
    """
    all_contents = contents or b"".join(
        _contents([*folders, shipped_folder("evals"), own_folder()])
    )
    known = {match.decode("utf-8", "replace") for match in _NAMES.findall(all_contents)} - {name}
    nearest = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.6)
    broken = _unreadable(folders)
    if nearest and not (broken and name.encode() in broken.read_bytes()):
        mend = f"did you mean {', '.join(nearest)}?"
    elif broken:
        mend = f"{broken} is not readable YAML; mend it if the task is there"
    else:
        mend = f"check the name, or name its folder {where}"
    return TaskError(f"task {name}: unknown; {mend}")


def own_folder() -> Path:
    """The folder of lm-eval's own tasks, found without importing it."""
    package = importlib.util.find_spec("lm_eval")
    assert package is not None and package.submodule_search_locations, "lm-eval is a dependency"
    return Path(package.submodule_search_locations[0], "tasks")


def yaml_files(folder: Path) -> list[Path]:
    """The files in a folder and its subfolders that lm-eval reads as tasks, in order."""
    return sorted(path for path in folder.glob("**/*.yaml") if not path.is_dir() and path.exists())


def _contents(folders: Iterable[Path]) -> Iterator[bytes]:
    for folder in folders:
        for parent, _, names in os.walk(folder, followlinks=True):
            for name in names:
                path = os.path.join(parent, name)
                if name.endswith(".yaml") and os.path.isfile(path):
                    with open(path, "rb") as file:
                        yield b"\n" + file.read(_LARGEST_BYTES)


def _unreadable(folders: Iterable[Path]) -> Path | None:
    """The first file of the user's folders that is no valid YAML: lm-eval skips it silently."""
    paths = (path for folder in folders for path in yaml_files(folder))
    return next((path for path in paths if read_task_file(path) is None), None)


class _PlainLoader(yaml.SafeLoader):
    """Reads task files as data: `!function` and other tags become their text."""


_PlainLoader.add_multi_constructor("!", lambda _loader, _tag, node: str(node.value))


def read_task_file(path: Path) -> dict[str, object] | None:
    """A task file as data, its tags as texts; None if it is not a YAML mapping."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
    except (OSError, ValueError, LookupError, AttributeError, TypeError, yaml.YAMLError):
        return None  # a value that cannot be built raises many kinds of errors
    return document if isinstance(document, dict) else None


def included(path: Path, document: dict[str, object]) -> list[Path]:
    """The existing files among those that a task file includes."""
    listed = document.get("include") or []
    names = [str(name) for name in (listed if isinstance(listed, list) else [listed])]
    paths = [Path(os.path.realpath(path.parent / name)) for name in names if "\0" not in name]
    return [include for include in paths if os.path.exists(include) and not include.is_dir()]
