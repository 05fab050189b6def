"""Writes new job files, from a user's answers or a file of mergekit, after the quick checks."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.api.arguments import check_names_of
from evomerge.errors import InputError, JobError
from evomerge.job import JobSpec, parse_job
from evomerge.space import read_space

if TYPE_CHECKING:
    from evomerge.job import JobDraft


def write_job(draft: JobDraft, out: Path) -> JobSpec:
    """Write the job file of a draft, and return the job that is read from it.

    Raises InputError if the file exists, the job is wrong, or a task or model is missing; then
    nothing is written.
    """
    refuse_written(out)
    return _write(draft.text(out), out)


@dataclass(frozen=True, kw_only=True)
class ImportedJob:
    """A job made of a file of mergekit.

    text: of the job file, with comments. notes: a sentence for all that is not as it is there.
    """

    job: JobSpec
    text: str
    notes: tuple[str, ...]


def import_job(
    file: str | Path,
    out: str | Path | None,
    *,
    tasks: Sequence[str] = (),
    task_folders: Sequence[str | Path] = (),
    base: str | None = None,
    name: str | None = None,
    candidates: int | None = None,
    hours: float | None = None,
) -> ImportedJob:
    """Write the job file of a mergekit-evolve configuration, or of any mergekit merge.

    The search of a merge starts at the merge itself, in the coarsest search space that can express
    it. That of a configuration has its genome, and starts where mergekit-evolve does.

    Args:
        file: of mergekit. Its models must be there: folders, or downloaded from the hub.
        out: the job file to write; it must not exist. None: no file is written.
        tasks: "TASK:METRIC", or "TASK" for its first metric; only for a file that names no tasks.
        task_folders: folders of your own lm-eval tasks.
        base: the model that the others were tuned from, for a merge that names none.
        name: of the search; that of `out`, or without one that of `file`, if not given.
        candidates: budget; by default mergekit-evolve's 100, or 200 for a merge.
        hours: another budget, in worker hours.

    Returns:
        The job, its text, and what could not be carried over, which the text has as comments.

    Raises:
        InputError: the file, a model or a task cannot be used; nothing is written.
    """
    source = Path(file)
    target = source.with_name("job.yaml") if out is None else Path(out)
    if out is not None:
        refuse_written(target)
    check_budget(candidates, hours)
    from evomerge.conversion import convert, names_tasks
    from evomerge.evaluate import check_folders

    own = names_tasks(source)
    if own and tasks:
        raise JobError(f"--task: {source} names its tasks; leave it out, or change the job after")
    if not own and not tasks:
        raise JobError(
            f"{source}: names no tasks, so nothing tells which merge is better; give "
            "--task NAME:METRIC"
        )
    folders = [Path(folder) for folder in task_folders]
    check_folders(folders, where="--task-folder")
    objectives = [objective_of(task, folders) for task in tasks]
    converted = convert(source, base=base)
    if objectives:
        named = tuple({"task": task, "metric": metric} for task, metric in objectives)
        converted = replace(converted, objectives=named)
    if folders:
        evaluation = {**converted.evaluation, "task_folders": [str(folder) for folder in folders]}
        converted = replace(converted, evaluation=evaluation)
    budget: dict[str, float] = {}
    if candidates is not None or hours is None:
        budget["candidates"] = candidates or converted.candidates or CANDIDATES
    if hours is not None:
        budget["hours"] = hours
    called = name or plain_job_name((source if out is None else target).stem)
    text = converted.text(target, made_of=source, name=called, budget=budget)
    job = _checked(text, target) if out is None else _write(text, target)
    return ImportedJob(job=job, text=text, notes=converted.notes)


CANDIDATES = 200
"""The budget of a new job if none is given."""


def objective_of(text: str, folders: Sequence[Path]) -> tuple[str, str]:
    """(task, metric) of TASK:METRIC; the task's first usable metric if none is given."""
    from evomerge.evaluate import find_task

    task, _, metric = text.partition(":")
    found = find_task(task, folders)
    usable = [listed.name for listed in found.metrics or () if listed.usable]
    if metric:
        bare = metric.partition(",")[0]
        if found.metrics and bare not in [name.partition(",")[0] for name in usable]:
            raise JobError(f"task {task}: no metric {metric}; usable here: {', '.join(usable)}")
        return task, metric
    if not usable:
        raise JobError(f"task {task}: write TASK:METRIC; its file does not tell a usable metric")
    return task, usable[0]


def check_budget(candidates: int | None, hours: float | None) -> None:
    """Raise InputError for a budget of nothing."""
    if candidates is not None and candidates < 1:
        raise InputError(f"--candidates {candidates}: must be at least 1")
    if hours is not None and not 0.0 < hours < math.inf:
        raise InputError(f"--hours {hours:g}: must be a number of hours above 0")


def plain_job_name(stem: str) -> str:
    """The name of a file as the name of a search."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._") or "search"


def _checked(text: str, out: Path) -> JobSpec:
    """The job of a text, after the quick checks."""
    job = parse_job(text, where=str(out))
    check_names_of(job)
    for search in job.searches:
        read_space(search.search_space)
    return job


def _write(text: str, out: Path) -> JobSpec:
    """Check the text of a job, and write it."""
    job = _checked(text, out)
    with out.open("x", encoding="utf-8") as file:
        file.write(text)
    return job


def refuse_written(out: Path) -> None:
    """Raise JobError if there is a file already."""
    if out.exists() or out.is_symlink():
        raise JobError(f"{out}: exists already; name another file with --out")
