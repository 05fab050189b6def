"""What was made of a user's questions: the task, the choices made for it, and the checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from evomerge.documents import code, plain
from evomerge.errors import one_line
from evomerge.questions.checks import Check
from evomerge.questions.columns import Columns
from evomerge.questions.kind import METRICS, Kind

_LONGEST_PROMPT = 1_200
_LONGEST_LINE = 200


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One prompt as a model reads it, and the right answer.

    model: whose chat template and examples it has; None for plain text. place: the row.
    """

    place: str
    prompt: str
    answer: str
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class TaskReport:
    """A task made from a file.

    folder: where it is. source, sha256: the file. reason: why this kind. stop, max_tokens: how a
    generated answer ends; without effect for choices. items: how many; splits: how many of them a
    job with the usual shares has in each part. prompts: the first three.
    """

    folder: Path
    name: str
    source: Path
    sha256: str
    columns: Columns
    kind: Kind
    reason: str
    stop: tuple[str, ...]
    max_tokens: int
    items: int
    examples: int
    splits: Mapping[str, int]
    checks: Sequence[Check]
    prompts: Sequence[Shown]

    @property
    def metric(self) -> str:
        """The metric to search with."""
        return METRICS[self.kind][0]

    @property
    def warnings(self) -> tuple[str, ...]:
        """The sentences of the checks that ended with a warning."""
        return tuple(check.sentence for check in self.checks if check.level == "warning")

    @property
    def lm_eval_command(self) -> str:
        """The stock command that scores a model with the task, from within its folder."""
        return (
            f"lm_eval --model hf --model_args pretrained=MODEL --include_path . --tasks {self.name}"
        )

    def lines(self) -> Iterator[str]:
        """The report for a terminal, one line after another."""
        for name, value in self._facts():
            yield f"{name + ':':10}{value}"
        for check in self.checks:
            yield f"{check.level + ':':10}{check.sentence}"
        for shown, readers in _alike(self.prompts):
            yield ""
            whose = f" for {' and '.join(map(one_line, readers))}" if readers else ""
            yield f"prompt of {shown.place}{whose}:"
            for line in _cut(shown.prompt, _LONGEST_PROMPT).split("\n"):
                yield f"  | {line}"
            yield f"  right: {_cut(one_line(shown.answer), _LONGEST_LINE)}"

    def _facts(self) -> Iterator[tuple[str, str]]:
        columns = self.columns
        yield "task", self.name
        yield "question", one_line(columns.question)
        if columns.context is not None:
            yield "context", one_line(columns.context)
        if columns.choices:
            yield "choices", one_line(", ".join(columns.choices))
        yield "answer", one_line(columns.answer)
        yield "kind", f"{self.kind} ({self.reason})"
        yield "metric", ", ".join(METRICS[self.kind])
        if self.kind != "choices":
            stop = ", ".join(repr(text) for text in self.stop) or "the model's own end"
            yield "answers", f"end at {stop}, after {self.max_tokens} tokens at most"
        counts = ", ".join(f"{count} {name}" for name, count in self.splits.items())
        noun = "example" if self.examples == 1 else "examples"
        shots = f", and {self.examples} few-shot {noun}" if self.examples else ""
        yield "items", f"{self.items} ({counts}){shots}"

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            **{key: value for key, value in asdict(self).items() if key not in ("splits",)},
            "folder": str(self.folder),
            "source": str(self.source),
            "splits": dict(self.splits),
            "metric": self.metric,
            "metrics": list(METRICS[self.kind]),
            "checks": [asdict(check) for check in self.checks],
            "prompts": [asdict(shown) for shown in self.prompts],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TaskReport:
        """The report that `to_json` gave, also where a server made the task."""
        given = {field.name: document[field.name] for field in fields(cls)}
        columns = {**document["columns"], "choices": tuple(document["columns"]["choices"])}
        return cls(
            **{
                **given,
                "folder": Path(document["folder"]),
                "source": Path(document["source"]),
                "columns": Columns(**columns),
                "stop": tuple(document["stop"]),
                "checks": [Check(**check) for check in document["checks"]],
                "prompts": [Shown(**shown) for shown in document["prompts"]],
            }
        )

    def readme(self) -> str:
        """The README of the task's folder; texts of the table cannot be markup there."""
        columns = self.columns
        used = [f"question {code(columns.question)}", f"answer {code(columns.answer)}"]
        if columns.context is not None:
            used.append(f"context {code(columns.context)}")
        if columns.choices:
            used.append(f"choices {', '.join(map(code, columns.choices))}")
        lines = [
            f"# {self.name}",
            "",
            f"An lm-eval task of {self.items} item{'' if self.items == 1 else 's'}, made by "
            f"`evomerge task from-file` from {code(self.source.name)} (sha256 `{self.sha256}`).",
            "",
            f"- Columns: {'; '.join(used)}.",
            f"- Kind of answer: {self.kind}, because {plain(self.reason)}.",
            f"- Metrics: {', '.join(f'`{metric}`' for metric in METRICS[self.kind])}.",
        ]
        if self.kind != "choices":
            stop = ", ".join(code(repr(text)) for text in self.stop) or "the model's own end"
            lines.append(f"- An answer ends at {stop}, after {self.max_tokens} tokens at most.")
        if self.examples:
            more = "s, which are no items" if self.examples > 1 else ", which is no item"
            lines.append(f"- {self.examples} few-shot example{more}.")
        lines += ["", "## Run it", "", "From this folder, wherever it is:", ""]
        lines += [f"    {self.lm_eval_command}", "", "In a job of evomerge:", ""]
        lines += [
            "```yaml",
            "objectives:",
            f"  - {{task: {self.name}, metric: {self.metric}}}",
            "evaluation:",
            "  task_folders: [FOLDER]  # the path of this folder",
            "```",
            "",
            "## Checks",
            "",
        ]
        lines += [f"- {check.level}: {plain(check.sentence)}" for check in self.checks]
        return "\n".join(lines) + "\n"


def _alike(prompts: Sequence[Shown]) -> Iterator[tuple[Shown, list[str]]]:
    """Each prompt once, with the models that read it so."""
    readers: dict[Shown, list[str]] = {}
    for shown in prompts:
        models = readers.setdefault(replace(shown, model=None), [])
        if shown.model is not None and shown.model not in models:
            models.append(shown.model)
    yield from readers.items()


def _cut(text: str, most: int) -> str:
    """A long text without its middle."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} [...] {text[-half:]}"
