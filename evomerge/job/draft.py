"""The text of a new job file: short, with a comment where a choice needs one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from evomerge.errors import visible

Goal = Literal["score", "balance", "front"]
"""What a search looks for: the best mean, a mean that rewards balance, or a front."""

_GOALS: dict[Goal, str] = {
    "score": "",
    "balance": "aggregate: geometric # rewards balance: a model that forgets one task scores low",
    "front": "mode: pareto # no single winner: each objective is an axis of a front of merges",
}


@dataclass(frozen=True, kw_only=True)
class JobDraft:
    """The answers that make a job.

    objectives: (task, metric). space: a name or a path; None for the default. space_says: a line on
    it. candidates, hours: the budget; the first limit that is reached ends the search.
    """

    name: str
    base: str
    sources: tuple[str, ...]
    objectives: tuple[tuple[str, str], ...]
    goal: Goal = "score"
    space: str | None = None
    space_says: str = ""
    candidates: int | None = None
    hours: float | None = None
    device: str = "auto"
    task_folders: tuple[str, ...] = ()

    def text(self, file: Path) -> str:
        """The text of the job file; `file` is its path."""
        return "\n".join(self._lines(file)) + "\n"

    def _lines(self, file: Path) -> Iterator[str]:
        path = visible(shlex.quote(str(file)))  # a comment ends with its line
        yield f"# evomerge check {path}: what this search would take; nothing is run."
        yield f"# evomerge search {path}: run it."
        yield f"name: {_value(self.name)}"
        yield "models:"
        yield f"  base: {_value(self.base)}"
        yield "  sources: # fine-tuned from the base"
        yield from (f"    - {_value(source)}" for source in self.sources)
        if self.space is None:
            yield "# search_space: one_weight_per_model # the default; see evomerge list spaces"
        else:
            says = f" # {self.space_says}" if self.space_says else ""
            yield f"search_space: {_value(self.space)}{says}"
        yield "objectives: # a weight may be given to each, e.g. weight: 2"
        for task, metric in self.objectives:
            yield f"  - {{task: {_value(task)}, metric: {_value(metric)}}}"
        if _GOALS[self.goal]:
            yield _GOALS[self.goal]
        if self.task_folders:
            folders = ", ".join(map(_value, self.task_folders))
            yield "evaluation:"
            yield f"  task_folders: [{folders}] # task files are code; only these folders are read"
        yield f"budget: {{{', '.join(self._limits())}}} # the search itself; selection comes on top"
        if self.device != "auto":
            yield f"compute: {{device: {_value(self.device)}}}"

    def _limits(self) -> Iterator[str]:
        if self.candidates is not None:
            yield f"candidates: {self.candidates}"
        if self.hours is not None:
            yield f"hours: {self.hours:g}"


def _value(text: str) -> str:
    """A text as YAML that stays a text, also between braces."""
    written = yaml.safe_dump(
        [text], default_flow_style=True, allow_unicode=True, width=2**20
    ).strip()
    return written[1:-1]
