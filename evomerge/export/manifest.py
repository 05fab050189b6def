"""The manifest of an exported folder: hashes of all its files and of its sources' files.

It has no time and no path of the machine, so two exports of one recipe are equal to the byte.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evomerge.errors import RunError
from evomerge.export.adapter_facts import AdapterFacts
from evomerge.export.folder import inside
from evomerge.export.origins import FileFacts, Origin
from evomerge.version import __version__

MANIFEST = "manifest.json"
RECIPE = "recipe.yaml"

_PACKAGES = ("torch", "numpy", "safetensors", "transformers", "tokenizers", "lm-eval")
"""Packages that can change a byte or a score of an export with their version."""


def versions_here() -> dict[str, str]:
    """Versions of evomerge, Python and the packages an export depends on."""
    return {
        "evomerge": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
    }


def write_manifest(
    folder: Path,
    origins: Sequence[Origin],
    *,
    merges: Sequence[Mapping[str, object]] = (),
    adapter: AdapterFacts | None = None,
    sha256: Mapping[str, str] | None = None,
) -> None:
    """Hash every file of a finished folder, except hidden ones, and write the manifest.

    merges: method and models of each merge on the way, by their public names. adapter: what the
    folder holds if it is an adapter. sha256: of files that are hashed already.
    """
    known = sha256 or {}
    names = (
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )
    files = {name: file_facts(folder / name, sha256=known.get(name)) for name in sorted(names)}
    document = {
        "created_by": f"evomerge {__version__}",
        "recipe_sha256": files[RECIPE].sha256,
        "files": {name: vars(facts) for name, facts in files.items()},
        **({} if adapter is None else {"adapter": adapter.to_json()}),
        "merges": list(merges),
        "sources": [
            {
                "name": origin.name,
                "revision": origin.revision,
                "files": {name: vars(facts) for name, facts in sorted(origin.files.items())},
            }
            for origin in origins
        ],
        "versions": versions_here(),
    }
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    inside(folder, MANIFEST).write_text(text, encoding="utf-8")


def changed_files(folder: Path) -> tuple[str, ...]:
    """Names of files that are missing or differ from the manifest, in order.

    Reads every byte. Raises RunError when the folder has no readable manifest.
    """
    stated = read_manifest(folder)["files"]
    return tuple(
        name
        for name, facts in stated.items()
        if not (folder / name).is_file() or vars(file_facts(folder / name)) != dict(facts)
    )


def read_manifest(folder: Path) -> Mapping[str, Any]:
    """The manifest of an exported folder. Raises RunError."""
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        names = list(document["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(
            f"{path}: cannot be read, so the folder cannot be verified; export it again"
        ) from error
    outside = [name for name in names if not _stays_inside(folder, name)]
    if outside:
        raise RunError(f"{path}: names {outside[0]}, outside the folder; export it again")
    return dict(document)


def file_facts(path: Path, *, sha256: str | None = None) -> FileFacts:
    """Size and sha256 of a file; reads every byte where the hash is not given."""
    if sha256 is None:
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileFacts(sha256=sha256, size_bytes=path.stat().st_size)


def _stays_inside(folder: Path, name: str) -> bool:
    return (folder / name).resolve().is_relative_to(folder.resolve())
