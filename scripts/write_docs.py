"""Writes the parts of docs/ that come from the code, between their marks.

    .venv/bin/python scripts/write_docs.py

The keys of a job come from its schema, the merge methods and optimisers from their registries, the
search spaces from their files, the rooms from their docstrings. tests/test_docs.py checks that the
pages are up to date.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from evomerge.job import JobSpec  # noqa: E402
from evomerge.merge import (  # noqa: E402
    DESCRIPTIONS,
    METHODS,
    Method,
    ParameterSpec,
)
from evomerge.optimize import BUILT_IN, Mode  # noqa: E402
from evomerge.space import shipped_spaces  # noqa: E402


def methods() -> str:
    """A table of every merge method in the registry."""
    rows = [
        (
            f"`{name}`",
            DESCRIPTIONS[name].computes,
            DESCRIPTIONS[name].use_for,
            _models(method),
            "; ".join(_parameter(key, spec) for key, spec in method.parameters.items()) or "none",
            _linked(method.citation),
        )
        for name, method in METHODS.items()
    ]
    return _table(("method", "computes", "use it for", "models", "parameters", "source"), rows)


def _models(method: Method) -> str:
    base = "with a base" if method.needs_base else "no base needed"
    if method.statistics is not None:
        base += ", with statistics"
    if method.max_models == 1:
        return "one a slice"
    if method.max_models is not None:
        return f"{method.max_models}, {base}" if not method.needs_base else "one and a base"
    if method.experts is not None:
        return f"{method.experts}, {base}"
    return base


def _parameter(name: str, spec: ParameterSpec) -> str:
    shown = f"`{name}`"
    if spec.scope == "model":
        shown += " a model"
    if spec.default is not None:
        default = spec.default
        number = isinstance(default, float)
        shown += f" = {f'{default:g}' if number else str(default).lower()}"
    return shown


def _linked(citation: str) -> str:
    return re.sub(r"arXiv:(\d{4}\.\d{5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", citation)


def search_spaces() -> str:
    """A table of the shipped search spaces, from the fewest genes to the most."""
    rows = [
        (f"[`{space.name}`](../search_spaces/{space.name}.yaml)", str(space.genes), space.says)
        for space in shipped_spaces()
    ]
    return _table(("space", "genes", "what it is, and when to use it"), rows)


def job() -> str:
    """Every key of a job, section by section."""
    schema = JobSpec.model_json_schema()
    parts = [_keys("", schema)]
    for name, prefix in _sections(schema):
        section = schema["$defs"][name]
        parts.append(f"## `{prefix}`\n\n{_flat(section['description'])}\n\n{_keys('', section)}")
        if prefix == "optimizer":
            parts.append(optimizers())
    return "\n\n".join(parts)


def optimizers() -> str:
    """A table of every optimiser in the registry."""
    modes: tuple[Mode, ...] = ("single", "pareto")
    rows = [
        (
            f"`{name}`",
            ", ".join(f"`{mode}`" for mode in modes if row.serves(mode)),
            row.purpose,
            "; ".join(
                [
                    *([f"{row.objectives} objectives"] if row.objectives else []),
                    *([f"population {row.least_population} or more"] * (row.least_population > 4)),
                ]
            ),
            _linked(row.citation),
        )
        for name, row in BUILT_IN.items()
    ]
    return _table(("algorithm", "mode", "use it for", "limits", "source"), rows)


def _sections(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The schemas inside a schema, with the key that leads to each, in the order of the keys."""

    def walk(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
        for key, field in node["properties"].items():
            inner = field.get("items", field).get("$ref")
            if inner is not None:
                name = inner.rpartition("/")[2]
                place = f"{prefix}{key}" + ("[]" if "items" in field else "")
                yield name, place
                yield from walk(schema["$defs"][name], f"{place}.")

    yield from walk(schema, "")


def _keys(prefix: str, section: Mapping[str, Any]) -> str:
    required = section.get("required", ())
    rows = [
        (
            f"`{prefix}{key}`",
            _type(field),
            "**needed**" if key in required else _default(field.get("default")),
            _flat(field["description"]),
        )
        for key, field in section["properties"].items()
    ]
    return _table(("key", "values", "default", "meaning"), rows)


def _type(field: Mapping[str, Any]) -> str:
    """What may stand there, as people write it."""
    if "$ref" in field:
        return "see below"
    if "anyOf" in field:
        kinds = [_type(kind) for kind in field["anyOf"] if kind.get("type") != "null"]
        return " or ".join(kinds)
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = {"integer": "whole number", "object": "mapping", "string": "text"}.get(
        field["type"], field["type"]
    )
    if kind == "array":
        inner = "mappings, see below" if "$ref" in field["items"] else "texts"
        return f"list of {inner}{_bounds(field, 'minItems', 'maxItems')}"
    if kind == "boolean":
        return "`true`, `false`"
    return kind + _bounds(field, "minimum", "maximum")


def _bounds(field: Mapping[str, Any], low: str, high: str) -> str:
    said = []
    if low in field:
        said.append(f"{field[low]:,g} or more")
    if f"exclusive{low[0].upper()}{low[1:]}" in field:
        said.append(f"above {field[f'exclusive{low[0].upper()}{low[1:]}']:,g}")
    if high in field and field[high] < 1e9:
        said.append(f"at most {field[high]:,g}")
    if "exclusiveMaximum" in field and high == "maximum" and field["exclusiveMaximum"] < 2**32:
        said.append(f"below {field['exclusiveMaximum']:,g}")
    return f" ({', '.join(said)})" if said else ""


def _default(value: object) -> str:
    if value is None or value == [] or isinstance(value, dict):
        return "" if isinstance(value, dict) else "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:.4g}`" if isinstance(value, float) else f"`{value}`"


def rooms() -> str:
    """The tree of the package, from the ground up, with the purpose of each room."""
    house = (TOP / "tests" / "test_house.py").read_text(encoding="utf-8")
    order = next(
        ast.literal_eval(node.value)
        for node in ast.parse(house).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ORDER"
    )
    names = [f"{name}/" if (TOP / "evomerge" / name).is_dir() else f"{name}.py" for name in order]
    width = max(map(len, names)) + 2
    lines = ["```text", "evomerge/"]
    for place, (name, shown) in enumerate(zip(order, names, strict=True)):
        purpose = (importlib.import_module(f"evomerge.{name}").__doc__ or "").partition("\n")[0]
        branch = "└──" if place == len(order) - 1 else "├──"
        lines.append(f"{branch} {shown:<{width}}{purpose}")
    return "\n".join([*lines, "```"])


def _flat(text: str) -> str:
    return " ".join(text.split())


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


PARTS: Mapping[str, tuple[str, Callable[[], str]]] = {
    "methods": ("methods.md", methods),
    "search spaces": ("search-spaces.md", search_spaces),
    "job": ("job.md", job),
    "rooms": ("how-it-works.md", rooms),
}
"""Name between the marks -> the page, and what writes the part."""


def written(name: str, page: str) -> str:
    """The text of a page with the part of that name as the code has it now."""
    begin, end = f"<!-- {name}: written by scripts/write_docs.py -->", f"<!-- end of {name} -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    assert found and closed, f"{name}: its marks are missing"
    return f"{before}{begin}\n\n{PARTS[name][1]()}\n\n{end}{after}"


def main() -> None:
    """Write every part."""
    for name, (page, _) in PARTS.items():
        path = TOP / "docs" / page
        path.write_text(written(name, path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
