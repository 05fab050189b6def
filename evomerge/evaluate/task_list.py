"""Lists tasks and their metrics as the task files name them; nothing is loaded or run.

A task file is code, so only a job that names a task loads it. Some tasks are Python classes: their
files do not tell the metrics.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from evomerge.errors import TaskError
from evomerge.evaluate.task_files import (
    check_folders,
    included,
    own_folder,
    read_task_file,
    unknown_task,
    yaml_files,
)
from evomerge.job import shipped_folder

_OWN_METRICS: Mapping[str, tuple[str, ...]] = {
    "multiple_choice": ("acc", "acc_norm"),
    "loglikelihood": ("perplexity", "acc"),
    "generate_until": ("exact_match",),
}
"""Metrics of a task whose file names none, as in lm-eval."""

_LOWER = frozenset(
    {"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "ter", "brier_score"}
)
"""lm-eval's metrics that are better when lower."""

_NO_MEANS = _LOWER | {"f1", "mcc", "bleu", "chrf", "chrf++", "bypass"}
"""lm-eval's metrics that are no means over items, unless a file says another aggregation."""

_NAMED = re.compile(rb"^[\"']?(task|group)[\"']?:[ \t]*[\"']?([^\s\"'#\[{]+)", re.MULTILINE)
_TAGS = re.compile(rb"^[\"']?tag[\"']?:((?:[ \t]*[^\n]+|(?:[ \t]*\n[ \t]*-[^\n]+)+))", re.MULTILINE)
_INCLUDE = re.compile(rb"^[\"']?include[\"']?:[ \t]*[\"']?([^\s\"'#\[{]+)", re.MULTILINE)
_TAG = re.compile(rb"[^\s\[\],\"'-][^\s\[\],\"']*")

Kind = Literal["task", "group", "tag"]


@dataclass(frozen=True, kw_only=True)
class ListedMetric:
    """A metric of a task. usable: whether it is a mean over items, as an objective must be."""

    name: str
    higher_is_better: bool
    usable: bool


@dataclass(frozen=True, kw_only=True)
class ListedTask:
    """A name that an objective may have. metrics: None if its file does not tell them."""

    name: str
    kind: Kind
    path: Path
    metrics: tuple[ListedMetric, ...] | None


def list_tasks(folders: Sequence[Path]) -> list[ListedTask]:
    """Tasks, groups and tags of the user's folders and the shipped ones, each name once.

    A folder that comes first hides later tasks of the same name, as in a search. Raises TaskError
    for a folder that cannot be read.
    """
    check_folders(folders)
    found: dict[str, ListedTask] = {}
    for folder in (*folders, shipped_folder("evals")):
        here: dict[str, ListedTask] = {}
        for path in yaml_files(folder):
            for task in _read(path):
                here.setdefault(task.name, task)
        for name in sorted(here):
            found.setdefault(name, here[name])
    return list(found.values())


def list_own() -> list[tuple[str, Kind]]:
    """Names of lm-eval's own tasks, groups and tags, sorted."""
    names: dict[str, Kind] = {}
    for _, kind, name in _own_names():
        names.setdefault(name, kind)
    return sorted(names.items())


def find_task(name: str, folders: Sequence[Path]) -> ListedTask:
    """The task of a name: of the folders, the shipped ones or lm-eval's.

    Only commands ask, with the folders of their options. Raises TaskError.
    """
    for task in list_tasks(folders):
        if task.name == name:
            return task
    for path, kind, found in _own_names():
        if found == name:
            listed = [task for task in _read(path) if task.name == name]
            return listed[0] if listed else ListedTask(name=name, kind=kind, path=path, metrics=())
    raise unknown_task(name, folders, where="with --task-folder")


def _own_names() -> Iterator[tuple[Path, Kind, str]]:
    for parent, folders, files in os.walk(own_folder()):
        folders.sort()
        for file in sorted(files):
            if file.endswith(".yaml"):
                path = Path(parent, file)
                content = path.read_bytes()
                found = dict(_NAMED.findall(content))
                name = found.get(b"group", found.get(b"task", b""))
                if name:
                    kind: Kind = "group" if b"group" in found else "task"
                    yield path, kind, name.decode("utf-8", "replace")
                if b"task" in found and b"group" not in found:
                    for tag in _tags_in(path, content):
                        yield path, "tag", tag


def _tags_in(path: Path, content: bytes) -> Iterator[str]:
    """Tags in the text of a task file, or else in the file that it includes."""
    for listed in _TAGS.findall(content):
        for tag in _TAG.findall(listed):
            yield tag.decode("utf-8", "replace")
    include = _INCLUDE.search(content)
    if include is not None and not _TAGS.search(content):
        yield from _tags_of(path.parent / include[1].decode("utf-8", "replace"))


@cache
def _tags_of(path: Path) -> tuple[str, ...]:
    return tuple(_tags_in(path, path.read_bytes())) if path.is_file() else ()


def _read(path: Path) -> list[ListedTask]:
    """What a file names: its task and its tags, or its group."""
    document = _whole(path, ())
    name = document.get("group", document.get("task"))
    if not isinstance(name, str):
        return []
    if "group" in document:
        rows = document.get("aggregate_metric_list") or []
        listed = rows if isinstance(rows, list) else [rows]
        metrics = [_metric(row) for row in listed if isinstance(row, dict)]
        return [ListedTask(name=name, kind="group", path=path, metrics=tuple(metrics))]
    tags = document.get("tag") or []
    found = [ListedTask(name=name, kind="task", path=path, metrics=_metrics_of(document))]
    for tag in tags if isinstance(tags, list) else [tags]:
        found.append(ListedTask(name=str(tag), kind="tag", path=path, metrics=()))
    return found


def _whole(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """A file's keys over those of the files that it includes."""
    document = read_task_file(path) or {}
    keys: dict[str, Any] = {}
    if path not in seen:
        for include in included(path, document):
            keys |= _whole(include, (*seen, path))
    return keys | document


def _metrics_of(document: Mapping[str, Any]) -> tuple[ListedMetric, ...] | None:
    rows = document.get("metric_list")
    if rows is None:
        names = _OWN_METRICS.get(str(document.get("output_type", "generate_until")))
        rows = None if names is None or "class" in document else [{"metric": n} for n in names]
    if not isinstance(rows, list):
        return None
    filters = document.get("filter_list")
    named = [str(f["name"]) for f in filters or () if isinstance(f, dict) and "name" in f]
    metrics = [_metric(row) for row in rows if isinstance(row, dict)]
    if len(named) < 2:
        return tuple(metrics)
    return tuple(
        ListedMetric(
            name=f"{metric.name},{each}",
            higher_is_better=metric.higher_is_better,
            usable=metric.usable,
        )
        for each in named
        for metric in metrics
    )


def _metric(row: Mapping[str, Any]) -> ListedMetric:
    name = str(row.get("metric")).removeprefix("!function ").rpartition(".")[2]
    aggregation = row.get("aggregation", "none" if name in _NO_MEANS else "mean")
    return ListedMetric(
        name=name,
        higher_is_better=bool(row.get("higher_is_better", name not in _LOWER)),
        usable=str(aggregation) == "mean",
    )


def require_metrics(task: ListedTask) -> tuple[ListedMetric, ...]:
    """The metrics of a task. Raises TaskError if its file does not tell them."""
    if task.metrics is None:
        raise TaskError(
            f"task {task.name}: it is a Python class, so its file does not tell its metrics; "
            f"`evomerge check` loads it, see {task.path}"
        )
    return task.metrics
