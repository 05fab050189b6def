"""A registry: evomerge's own parts of one kind by name, then those of installed packages.

Packages offer parts with entry points of the kind's group. A part is imported only when it is
looked up by name. A package cannot replace a part of evomerge by using its name.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from evomerge.errors import EvomergeError, InputError, is_shortage, one_line

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Every part of one kind by name. A lookup raises `error` if the part's package is unusable.

    key: the key of a document that gives the name, for errors. group: of entry points. built_in:
    evomerge's own parts. read: makes the part from the object and the name of an entry point; None
    if the object is not of the kind. wanted: what the object must be, for errors. code: gives the
    object that defines a part; its file is hashed. error: class of the errors.
    """

    def __init__(
        self,
        *,
        key: str,
        group: str,
        built_in: Mapping[str, T],
        read: Callable[[object, str], T | None],
        wanted: str,
        code: Callable[[T], Any] = lambda part: part,
        error: type[InputError] = InputError,
    ) -> None:
        self.group = group
        self._key = key
        self._built_in = built_in
        self._read = read
        self._wanted = wanted
        self._code = code
        self._error = error
        self._loaded: dict[str, tuple[T, EntryPoint]] = {}

    @cached_property
    def _offered(self) -> dict[str, EntryPoint]:
        found = {point.name: point for point in entry_points(group=self.group)}
        return {name: found[name] for name in sorted(found) if name not in self._built_in}

    def __getitem__(self, name: str) -> T:
        if name in self._built_in:
            return self._built_in[name]
        if name not in self._loaded:
            point = self._offered[name]
            self._loaded[name] = self._load(point), point
        return self._loaded[name][0]

    def __contains__(self, name: object) -> bool:
        return name in self._built_in or name in self._offered

    def __iter__(self) -> Iterator[str]:
        yield from self._built_in
        yield from self._offered

    def __len__(self) -> int:
        return len(self._built_in) + len(self._offered)

    def forget(self) -> None:
        """Look for installed packages again, as a new process does."""
        self._loaded.clear()
        vars(self).pop("_offered", None)

    def versions(self, names: Collection[str] | None = None) -> dict[str, str]:
        """Part -> version of its package and digest of its file, for used parts of packages.

        names: the parts, which are imported if necessary; None for all parts that this process has
        looked up.
        """
        for name in names or ():
            if name in self._offered:
                _ = self[name]
        kind = self._key.rpartition(".")[2].replace("_", " ")
        return {
            f"{kind} {name}": f"{_package(point)} (sha256 {_digest(self._code(part))})"
            for name, (part, point) in sorted(self._loaded.items())
            if names is None or name in names
        }

    def _load(self, point: EntryPoint) -> T:
        where = f"{self._key}: {point.name}, of {_package(point)}"
        offers = {_package(entry) for entry in entry_points(group=self.group, name=point.name)}
        if len(offers) > 1:
            raise self._error(
                f"{self._key}: {point.name} is offered by {' and by '.join(sorted(offers))}; "
                "uninstall all but one"
            )
        try:
            found = point.load()
        except Exception as error:
            raise self._error(f"{where}, cannot be imported ({one_line(error)})") from error
        part = self._read(found, point.name)
        if part is None:
            raise self._error(
                f"{where}: {point.value} is no {self._wanted}; mend the package's entry point in "
                f"{self.group}"
            )
        return part


@contextmanager
def package_errors(error_of: Callable[[str], EvomergeError]) -> Iterator[None]:
    """Turn an exception from a package's code into an error in one line.

    error_of: makes the error from the text of the exception. Errors of evomerge and shortages of
    the machine pass unchanged.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, EvomergeError) or is_shortage(error):
            raise
        raise error_of(f"{type(error).__name__}: {one_line(error)}") from error


def offered_names(group: str) -> list[str]:
    """The names that installed packages offer in a group; none is imported."""
    return sorted({point.name for point in entry_points(group=group)})


def unknown_part(name: str, *, kind: str, built_in: Sequence[str], group: str) -> str | None:
    """Why a name is not a part of a kind, and the mend; None if it is one. Nothing is imported.

    built_in: evomerge's own names; packages are not searched for them.
    """
    if name in built_in:
        return None
    offered = offered_names(group)
    if name in offered:
        return None
    known = (*built_in, *offered)
    nearest = difflib.get_close_matches(name, known, n=1)
    choice = f"install its package, or name one of {', '.join(known)}"
    mend = f"did you mean {nearest[0]}?" if nearest else choice
    return f"{name} is not an installed {kind}; {mend}"


def _package(point: EntryPoint) -> str:
    return "a package" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def _digest(code: Any) -> str:
    try:
        file = inspect.getsourcefile(inspect.unwrap(code))
        content = b"" if file is None else Path(file).read_bytes()
    except (TypeError, OSError):  # built at run time, or in an archive
        return "unknown"
    return hashlib.sha256(content).hexdigest()[:12] if content else "unknown"
