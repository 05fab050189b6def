"""The job that a file of mergekit becomes, and its text with what was not carried over."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from evomerge.errors import visible


@dataclass(frozen=True, kw_only=True)
class ConvertedJob:
    """The parts of a job that a file gives.

    models, space, evaluation, compute, optimizer: sections as a job file has them. objectives: of
    the file's tasks; empty if it names none. candidates: its budget, if it has one. notes: a
    sentence for everything that was not carried over as it is.
    """

    models: Mapping[str, Any]
    space: Mapping[str, Any]
    objectives: tuple[Mapping[str, Any], ...] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    compute: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    candidates: int | None = None
    notes: tuple[str, ...] = ()

    def text(
        self,
        file: Path,
        *,
        made_of: Path,
        name: str,
        budget: Mapping[str, float],
    ) -> str:
        """The text of the job file `file`."""
        return "\n".join(self._lines(file, made_of, name, budget)) + "\n"

    def _lines(
        self, file: Path, made_of: Path, name: str, budget: Mapping[str, float]
    ) -> Iterator[str]:
        path, source = (visible(shlex.quote(str(each))) for each in (file, made_of))
        yield f"# Made of {source} by `evomerge import`."
        if self.notes:
            yield "# Not carried over as it is there:"
            yield from (f"# - {visible(note)}" for note in self.notes)
        yield f"# evomerge check {path}: what this search would take; nothing is run."
        yield f"# evomerge search {path}: run it."
        document = {
            "name": name,
            "models": self.models,
            "search_space": self.space,
            "objectives": [dict(objective) for objective in self.objectives],
            "evaluation": self.evaluation,
            "optimizer": self.optimizer,
            "budget": budget,
            "compute": self.compute,
        }
        kept = {key: value for key, value in document.items() if value}
        yield yaml.dump(
            kept, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
        ).rstrip()


class _Dumper(yaml.SafeDumper):
    """Writes lists of plain values on one line, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_list(dumper: _Dumper, values: list[Any]) -> yaml.Node:
    flow = all(isinstance(value, int | float) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=flow)


_Dumper.add_representer(list, _represent_list)
