"""The house rules that a reader of imports can check: data flows one way."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import evomerge

PACKAGE = Path(evomerge.__file__).parent

ORDER = (
    "errors",
    "markdown",
    "shortage",
    "documents",
    "conditions",
    "recipe",
    "candidate",
    "job",
    "sources",
    "statistics",
    "vocabulary",
    "route",
    "merge",
    "space",
    "optimize",
    "evaluate",
    "sampling",
    "calibrate",
    "study",
    "standing",
    "outcome",
    "preparation",
    "events",
    "workers",
    "assessing",
    "ledger",
    "proposing",
    "generation",
    "search",
    "selection",
    "stages",
    "run",
    "grid",
    "export",
    "report",
    "result",
    "first_checks",
    "arguments",
    "api",
    "cli",
)
"""Rooms from the ground up; a room may import those before it."""

OWNERS = {
    "ray": ("workers/ray_pool.py", "workers/ray_session.py"),
    "lm_eval": ("evaluate/",),
    "cma": ("optimize/cma_es.py",),
    "optuna": ("study/", "optimize/"),
    "mergekit": (),
    "vllm": ("evaluate/engines/vllm",),
    "py3langid": ("conditions/language.py",),
}
"""Heavy dependencies and the only places that may import them."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)
            if node.module == "evomerge":
                yield from (f"evomerge.{alias.name}" for alias in node.names)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_no_room_below_it(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    rank = ORDER.index(room)
    for name in imports_of(path):
        first, _, rest = name.partition(".")
        if first != "evomerge" or not rest or rest == "__version__":
            continue
        other = rest.split(".")[0]
        assert other == room or ORDER.index(other) < rank, f"{room} imports {other}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_heavy_dependency_is_imported_by_its_owner_alone(path: Path) -> None:
    place = path.relative_to(PACKAGE).as_posix()
    for name in imports_of(path):
        allowed = OWNERS.get(name.split(".")[0])
        if allowed is not None:
            assert place.startswith(allowed), f"{place} imports {name}"


def test_every_module_says_its_purpose() -> None:
    for path in modules():
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


PROJECT = PACKAGE.parent
EXACT = {"lm-eval", "cma"}
"""Dependencies whose private names change with any release, so that nothing but the pin will do."""


def dependencies() -> list[Requirement]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(line) for line in project["dependencies"]]


@pytest.mark.parametrize("wanted", dependencies(), ids=lambda wanted: wanted.name)
def test_a_dependency_has_an_upper_bound_and_the_suite_runs_within_it(wanted: Requirement) -> None:
    operators = {part.operator for part in wanted.specifier}
    assert operators == ({"=="} if wanted.name in EXACT else {">=", "<"})
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").lower().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    assert wanted.specifier.contains(pins[wanted.name.lower()])


def test_a_pin_is_exact_where_it_says_so() -> None:
    lines = (PROJECT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    said = {line.strip().strip('"').partition("==")[0] for line in lines if "is exact" in line}
    assert said == EXACT
