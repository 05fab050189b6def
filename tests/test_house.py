"""The house rules that a reader of imports can check: data flows one way."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import evomerge

PACKAGE = Path(evomerge.__file__).parent
PROJECT = PACKAGE.parent

ORDER = (
    "errors",
    "version",
    "registry",
    "startup",
    "deferred",
    "devices",
    "documents",
    "problem_words",
    "conditions",
    "recipe",
    "optimize",
    "job",
    "sources",
    "vocabulary",
    "route",
    "merge",
    "space",
    "conversion",
    "evaluate",
    "calibrate",
    "study",
    "workers",
    "search",
    "track",
    "export",
    "questions",
    "report",
    "check",
    "grid",
    "api",
    "service",
    "cli",
)
"""Rooms from the ground up; a room may import those before it."""

OWNERS = {
    "ray": ("workers/ray_pool.py", "workers/ray_session.py"),
    "lm_eval": ("evaluate/",),
    "cma": ("optimize/cma_es.py",),
    "optuna": ("study/", "optimize/"),
    "mergekit": (),
    "vllm": ("evaluate/engines/vllm/",),
    "tensorboardX": ("track/tensorboard_run.py",),
    "wandb": ("track/wandb_run.py",),
    "mlflow": ("track/mlflow_run.py",),
    "trackio": ("track/trackio_run.py",),
    "py3langid": ("conditions/language.py",),
    "fastapi": ("service/http/",),
    "starlette": ("service/http/",),
    "uvicorn": ("service/http/",),
    "sse_starlette": ("service/http/",),
    "prometheus_client": ("service/http/",),
    "alembic": ("service/database/",),
    "httpcore2": ("service/webhooks/post.py",),
    "standardwebhooks": ("service/webhooks/signature.py",),
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


def test_a_room_imports_no_room_below_it() -> None:
    wrong = []
    for path in modules():
        room = room_of(path)
        for name in imports_of(path):
            first, _, rest = name.partition(".")
            if first != "evomerge" or not rest or room == "__init__":
                continue
            other = rest.split(".")[0]
            if other != room and ORDER.index(other) >= ORDER.index(room):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {other}")
    assert wrong == []


LIGHT = (
    "errors",
    "version",
    "registry",
    "startup",
    "deferred",
    "devices",
    "documents",
    "problem_words",
    "recipe",
    "job",
    "grid",
    "api",
)
"""Rooms that a server may import: none of them imports torch before it is asked for something."""


def test_the_service_knows_the_library_as_its_users_do() -> None:
    service = PACKAGE / "service"
    client = set((service / "client").rglob("*.py"))  # it runs where its user is
    for path in sorted(set(service.rglob("*.py")) - client):
        for name in imports_of(path):
            first, _, rest = name.partition(".")
            if first == "evomerge" and rest:
                assert rest.split(".")[0] in (*LIGHT, "service"), f"{path}: {name}"


def test_a_room_is_entered_by_its_face() -> None:
    for path in modules():
        for name in imports_of(path):
            first, _, rest = name.partition(".")
            other, _, inside = rest.partition(".")
            if first == "evomerge" and other != room_of(path):
                assert not inside, f"{name}: import it from evomerge.{other}"


def test_a_room_does_not_go_through_its_own_face() -> None:
    for path in modules():
        assert f"evomerge.{room_of(path)}" not in imports_of(path)


def test_a_face_has_all_that_it_offers_and_offers_nothing_that_nobody_takes() -> None:
    """Taken by another room, a test, a benchmark, an example or a page of the docs."""
    asked = {
        (str(node.module), alias.name)
        for folder in ("evomerge", "tests", "benchmarks", "scripts", "examples")
        for path in (PROJECT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    asked.add(("evomerge.cli", "main"))  # what the command is, by pyproject.toml
    pages = "".join(page.read_text(encoding="utf-8") for page in (PROJECT / "docs").glob("*.md"))
    for stub in sorted(PACKAGE.glob("*/__init__.pyi")):
        room = importlib.import_module(f"evomerge.{stub.parent.name}")
        for name in room.__all__:
            assert getattr(room, name) is not None
            known = (room.__name__, name) in asked or re.search(rf"\b{name}\b", pages)
            assert known, f"{room.__name__} offers {name}, which nothing takes"


def test_no_file_outgrows_its_purpose() -> None:
    for path in modules():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_a_heavy_dependency_is_imported_by_its_owner_alone() -> None:
    wrong = []
    for path in modules():
        place = path.relative_to(PACKAGE).as_posix()
        for name in imports_of(path):
            allowed = OWNERS.get(name.split(".")[0])
            if allowed is not None and not place.startswith(allowed):
                wrong.append(f"{place} imports {name}")
    assert wrong == []


def test_no_module_asks_which_engine_of_evomerges_own_it_has() -> None:
    """What differs between engines is in their rows, so that one more changes nothing else."""
    rows = ("workers/vllm_models.py", "workers/transformers_models.py")
    # The list of names, the list of rows; and tools outside evomerge, which load what it writes.
    naming = {"job/sections.py", "workers/engines.py", "export/commands.py"}
    for path in modules():
        place = path.relative_to(PACKAGE).as_posix()
        text = path.read_text(encoding="utf-8")
        if place not in rows and not place.startswith("evaluate/engines/vllm/"):
            assert "vllm" not in text.lower() or place in naming, place
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Compare | ast.Match):
                compared = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
                assert not compared & {"vllm", "transformers"}, f"{place}:{node.lineno}"


def test_every_module_says_its_purpose() -> None:
    for path in modules():
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


EXACT = {"lm-eval", "cma"}
"""Dependencies whose private names change with any release, so that nothing but the pin will do."""


def dependencies() -> list[Requirement]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    service = project["optional-dependencies"]["service"]
    return [Requirement(line) for line in (*project["dependencies"], *service)]


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
