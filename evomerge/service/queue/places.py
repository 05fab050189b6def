"""Where models, tasks and texts of a job may come from: the operator's folders and organisations.

A folder is compared as the system resolves it, so neither `..` nor a link leads out of it. The
request then names the resolved folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evomerge.job import shipped_folder
from evomerge.service.settings import ServiceSettings
from evomerge.service.store.refusals import Refusal

_HUB_ID = re.compile(r"(?P<organisation>\w[\w.-]*)/\w[\w.-]*(@[\w][\w./-]*)?", re.ASCII)
_MOST_FILES = 20_000
"""Files of a folder whose links are looked at; a folder with more is refused."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """What the jobs of one project may read; folders are resolved.

    operators: the operator's folders of tasks, to be named in messages.
    """

    sources: tuple[Path, ...]
    organisations: tuple[str, ...]
    tasks: tuple[Path, ...]
    texts: tuple[Path, ...]
    operators: tuple[Path, ...]

    @classmethod
    def of(cls, settings: ServiceSettings, project: str) -> Places:
        """The places that the operator allows a project."""
        sources = _resolved(settings.source_folders)
        own = [settings.made_tasks(project)]
        if settings.trust_task_code:
            own.append(settings.uploads(project))
        return cls(
            sources=sources,
            organisations=settings.hub_organisations,
            tasks=_resolved([*settings.task_folders, shipped_folder("evals"), *own]),
            operators=settings.task_folders,
            texts=_resolved(
                [*settings.source_folders, *settings.task_folders, settings.uploads(project)]
            ),
        )

    def model(self, reference: str, field: str) -> str:
        """The reference of a model that jobs may use. Raises Refusal.

        A folder is given absolutely, or relative to one of the allowed folders. MODEL+ADAPTER is
        two of them.
        """
        found = self._one_model(reference)
        if found is not None:
            return found
        for place in (index for index, sign in enumerate(reference) if sign == "+"):
            parts = [self._one_model(part) for part in (reference[:place], reference[place + 1 :])]
            if all(parts):
                return "+".join(part for part in parts if part)
        raise Refusal(
            "not a model that this service may use",
            field=field,
            value=reference,
            mend=self._mend(),
        )

    def _one_model(self, reference: str) -> str | None:
        folder = _inside(reference, self.sources)
        if folder is not None and folder.is_dir() and not _leads_out(folder, self.sources):
            return str(folder)
        hub = _HUB_ID.fullmatch(reference)
        if hub is None or ".." in reference:
            return None
        allowed = {name.lower() for name in self.organisations}
        known = "*" in allowed or hub["organisation"].lower() in allowed
        return reference if known else None

    def task_folder(self, folder: str, field: str) -> str:
        """A folder of task files that jobs may name. Raises Refusal."""
        found = _inside(folder, self.tasks)
        if found is None or not found.is_dir() or _leads_out(found, self.tasks):
            raise Refusal(
                "not a folder of tasks that this service may use",
                field=field,
                value=folder,
                mend=self._mend_tasks(),
            )
        return str(found)

    def file(self, path: str, field: str) -> str:
        """A text that jobs may read. Raises Refusal."""
        found = _inside(path, self.texts)
        if found is None or not found.is_file():
            raise Refusal(
                "not a file that this service may read",
                field=field,
                value=path,
                mend="upload it, or name one in the operator's folders",
            )
        return str(found)

    def statistics(self, folder: str, field: str) -> str:
        """A folder of statistics that `calibrate` wrote. Raises Refusal."""
        found = _inside(folder, self.sources)
        if found is None or not found.is_dir() or _leads_out(found, self.sources):
            raise Refusal(
                "not a folder that this service may use",
                field=field,
                value=folder,
                mend="name one in the operator's folders, or job:ID of a calibration",
            )
        return str(found)

    def _mend_tasks(self) -> str:
        if self.operators:
            return f"name one in {_listed(self.operators)}"
        return "leave it out, or ask the operator to allow its folder (--allow-task)"

    def _mend(self) -> str:
        ways = []
        if self.sources:
            ways.append(f"a folder in {_listed(self.sources)}")
        if self.organisations:
            ways.append(f"a model of {' or '.join(self.organisations)} on the hub")
        return f"name {' or '.join(ways)}" if ways else "ask the operator to allow its folder"


def _listed(folders: Iterable[Path]) -> str:
    return " or ".join(str(folder) for folder in folders)


def _resolved(folders: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(Path(os.path.realpath(folder)) for folder in folders)


def _inside(path: str, folders: Sequence[Path]) -> Path | None:
    """The resolved path if it is in one of the folders; relative paths are tried in each."""
    if not path or "\0" in path or path.startswith("~") or len(path) > 4000:
        return None
    try:
        path.encode()
    except UnicodeEncodeError:
        return None
    for folder in folders:
        found = Path(os.path.realpath(folder / path))
        if found.is_relative_to(folder) and os.path.exists(found):
            return found
    return None


def _leads_out(folder: Path, allowed: Sequence[Path]) -> bool:
    """Whether a link in the folder leads out of all that is allowed, or it has too many files."""
    seen = 0
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            seen += 1
            path = Path(where, name)
            if seen > _MOST_FILES:
                return True
            if path.is_symlink():
                real = Path(os.path.realpath(path))
                if not any(real.is_relative_to(place) for place in allowed):
                    return True
    return False
