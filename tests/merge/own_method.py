"""The example of a merge method in a package of its own, installed for a test."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import evomerge
from evomerge.merge.methods.registry import GROUP, METHODS

EXAMPLE = Path(evomerge.__file__).parents[1] / "examples" / "own_method"


@contextlib.contextmanager
def installed_example(site: Path) -> Iterator[None]:
    """With the example in the folder `site`, as pip leaves it: that would fetch what builds it."""
    shutil.copytree(EXAMPLE / "evomerge_agreement", site / "evomerge_agreement")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    write_metadata(site, project["name"], project["version"], **project["entry-points"][GROUP])
    with installed(site):
        yield


@contextlib.contextmanager
def installed(site: Path) -> Iterator[None]:
    """With the packages of a folder; methods are looked for as in a process that begins."""
    before, modules = dict(vars(METHODS)), set(sys.modules)
    sys.path.insert(0, str(site))
    vars(METHODS).clear()
    vars(METHODS).update(_loaded={})
    try:
        yield
    finally:
        sys.path.remove(str(site))
        vars(METHODS).clear()
        vars(METHODS).update(before)
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(site)):
                del sys.modules[name]


def write_metadata(site: Path, package: str, version: str, **points: str) -> None:
    """What an installer leaves beside a package, as far as it matters here."""
    folder = site / f"{package.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Name: {package}\nVersion: {version}\n")
    lines = [f"[{GROUP}]", *(f"{name} = {place}" for name, place in points.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines))
