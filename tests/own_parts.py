"""Parts of evomerge in packages of their own, installed for a test."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import evomerge
from evomerge.job import DRAWS
from evomerge.merge import METHODS
from evomerge.optimize import ALGORITHMS
from evomerge.registry import Registry
from evomerge.track import TRACKERS
from evomerge.workers import ENGINES

EXAMPLES = Path(evomerge.__file__).parents[1] / "examples"

REGISTRIES: tuple[Registry[Any], ...] = (METHODS, ALGORITHMS, ENGINES, DRAWS, TRACKERS)
"""All that packages can add to."""


@contextlib.contextmanager
def installed_example(name: str, site: Path) -> Iterator[None]:
    """With the package `examples/NAME` in the folder `site`, as pip leaves it."""
    folder = EXAMPLES / name
    for package in folder.glob("evomerge_*"):
        shutil.copytree(package, site / package.name)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    write_metadata(site, project["name"], project["version"], project["entry-points"])
    with installed(site):
        yield


@contextlib.contextmanager
def installed(site: Path) -> Iterator[None]:
    """With the packages of a folder; parts are looked for as in a process that begins."""
    modules = set(sys.modules)
    sys.path.insert(0, str(site))
    forget()
    try:
        yield
    finally:
        sys.path.remove(str(site))
        forget()
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(site)):
                del sys.modules[name]


def forget() -> None:
    """Let every registry look for packages anew."""
    for registry in REGISTRIES:
        registry.forget()


def write_metadata(
    site: Path, package: str, version: str, points: Mapping[str, Mapping[str, str]]
) -> None:
    """What an installer leaves beside a package, as far as it matters here.

    points: group -> name -> place.
    """
    folder = site / f"{package.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Name: {package}\nVersion: {version}\n")
    lines = []
    for group, places in points.items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in places.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines))
