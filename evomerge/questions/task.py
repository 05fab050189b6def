"""Writes the folder of a task: stock lm-eval runs it from any directory, also when it is moved.

FOLDER/
├── NAME.yaml        the task
├── items.jsonl      its items, one a line
├── examples.jsonl   the few-shot examples, where there are any
├── dataset.py       loads both from this folder: lm-eval reads relative paths from the directory
│                    in which it is started
├── scoring.py       scores the answers, where lm-eval has no metric for the kind
└── README.md        how it was made, and the commands that run it
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evomerge.errors import TaskError
from evomerge.evaluate import is_taken
from evomerge.questions.items import Item
from evomerge.questions.kind import METRICS, Kind

ITEMS = "items.jsonl"
EXAMPLES = "examples.jsonl"

_SHIPPED = Path(__file__).parent / "shipped"
_SCORING: Mapping[Kind, str] = {
    "number": "last_number.py",
    "json": "json_fields.py",
    "contains": "containment.py",
    "regex": "pattern.py",
}
"""Kinds that lm-eval's own metrics do not score exactly: its `exact_match` compares texts, so that
18 and 18.0 differ, and nothing of it reads JSON."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,79}")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the folder says. doc_to_text: the wording as lm-eval's template."""

    name: str
    kind: Kind
    items: Sequence[Item]
    examples: Sequence[Item]
    with_context: bool
    doc_to_text: str
    stop: tuple[str, ...]
    max_tokens: int

    @property
    def documents(self) -> list[dict[str, Any]]:
        """The items as their file holds them."""
        return [item.document(with_context=self.with_context) for item in self.items]


def task_name(name: str | None, path: Path) -> str:
    """The name as given, else one made from the file's.

    It is no name that lm-eval has a task of: the stock command would run either. Raises TaskError.
    """
    if name is None:
        plain = re.sub(r"[^a-z0-9]+", "_", path.stem.lower()).strip("_")[:60]
        made = plain if plain[:1].isalpha() else f"questions_{plain}".rstrip("_")
        return f"my_{made}" if is_taken(made) else made
    if not _NAME.fullmatch(name):
        raise TaskError(
            f"--name {name}: give letters, digits, - and _, beginning with a letter, at most 80"
        )
    if is_taken(name):
        raise TaskError(f"--name {name}: lm-eval has a task of this name; give another")
    return name


def write_task(folder: Path, task: Task) -> None:
    """Write the files of a task but its README into an existing folder."""
    _write_rows(folder / ITEMS, task.documents)
    if task.examples:
        rows = [item.document(with_context=task.with_context) for item in task.examples]
        _write_rows(folder / EXAMPLES, rows)
    _copy("dataset.py", folder / "dataset.py")
    if task.kind in _SCORING:
        _copy(_SCORING[task.kind], folder / "scoring.py")
    (folder / f"{task.name}.yaml").write_text(task_yaml(task), encoding="utf-8")


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    path.write_text(lines, encoding="utf-8", newline="\n")


def _copy(name: str, target: Path) -> None:
    target.write_bytes((_SHIPPED / name).read_bytes())


class _TaskDumper(yaml.SafeDumper):
    """Writes texts with line breaks in one line, as task files usually have them."""


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_TaskDumper.add_representer(str, _write_text)


def task_yaml(task: Task) -> str:
    """The task's file."""
    chooses = task.kind == "choices"
    parts: dict[str, Any] = {
        "output_type": "multiple_choice" if chooses else "generate_until",
        "test_split": "test",
        "doc_to_text": task.doc_to_text,
        # Columns, not templates: a text that looks like a list or a number stays a text.
        **({"doc_to_choice": "choices"} if chooses else {}),
        "doc_to_target": "answer",
        "target_delimiter": " ",
        "num_fewshot": len(task.examples),
    }
    if task.examples:
        parts["fewshot_split"] = "examples"
        parts["fewshot_config"] = {"sampler": "first_n"}
    if not chooses:
        parts["generation_kwargs"] = {
            "until": list(task.stop),
            "do_sample": False,
            "max_gen_toks": task.max_tokens,
        }
    if task.kind == "exact":
        strip = [{"function": "remove_whitespace"}, {"function": "take_first"}]
        parts["filter_list"] = [{"name": "stripped", "filter": strip}]
    parts["metric_list"] = [
        {"metric": metric, "aggregation": "mean", "higher_is_better": True}
        for metric in METRICS[task.kind]
    ]
    parts["metadata"] = {"version": 1.0}
    functions = "custom_dataset: !function dataset.load\n"
    if task.kind in _SCORING:
        functions += "process_results: !function scoring.score\n"
    written = yaml.dump(parts, Dumper=_TaskDumper, sort_keys=False, allow_unicode=True, width=2**20)
    return f"task: {json.dumps(task.name)}\n{functions}{written}"
