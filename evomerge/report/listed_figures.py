"""The figures of the report as a list, for pages that draw them themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from evomerge.report.figures import Figure
from evomerge.report.html import parts_of
from evomerge.sources import Structure
from evomerge.study import Study


def list_figures(study: Study, *, structure: Structure | None) -> dict[str, Figure]:
    """Place in the report -> figure, in its order: `search`, `test.combined`, `test.tasks.0`.

    structure: of the base model; None leaves out coefficients over depth.
    """
    return dict(_figures(parts_of(study, structure=structure), ""))


def _figures(part: Any, place: str) -> Iterator[tuple[str, Figure]]:
    if isinstance(part, Figure):
        yield place, part
    elif isinstance(part, Mapping):
        for name, each in part.items():
            yield from _figures(each, _inside(place, name))
    elif isinstance(part, Sequence) and not isinstance(part, str):
        for number, each in enumerate(part):
            yield from _figures(each, _inside(place, number))
    elif is_dataclass(part) and type(part).__module__.startswith("evomerge.report."):
        for field in fields(part):
            yield from _figures(getattr(part, field.name), _inside(place, field.name))


def _inside(place: str, name: object) -> str:
    return f"{place}.{name}" if place else str(name)
