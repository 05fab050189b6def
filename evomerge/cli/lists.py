"""The commands `evomerge list ...`: the names that a job may have, with what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.endings import answering, say, say_json, say_note

if TYPE_CHECKING:
    from evomerge.evaluate import ListedTask

lists = typer.Typer(
    help="List the names that a job may have: search spaces, merge methods, tasks, metrics.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
OfJob = Annotated[
    Path | None, typer.Option("--job", help="Also the task folders of this job.", metavar="JOB")
]
Folders = Annotated[
    list[Path] | None,
    typer.Option("--task-folder", help="Also the tasks of this folder.", metavar="DIR"),
]


@lists.command()
def spaces(as_json: AsJson = False) -> None:
    """Search spaces that ship with evomerge, from the fewest genes to the most."""
    with answering():
        if as_json:
            from evomerge.api import found_spaces

            say_json(found_spaces())
            return
        from evomerge.space import shipped_spaces

        found = shipped_spaces()
        say("genes are for 32 layers and two sources")
        _show([(s.name, f"{s.genes} gene{'s' * (s.genes != 1)}", s.summary) for s in found])


@lists.command()
def methods(as_json: AsJson = False) -> None:
    """Merge methods: what they compute, when to use them, and whether they can be searched."""
    with answering():
        if as_json:
            from evomerge.api import found_methods

            say_json(found_methods())
            return
        from evomerge.merge import DESCRIPTIONS
        from evomerge.registry import offered_names

        installed = [n for n in offered_names("evomerge.merge_methods") if n not in DESCRIPTIONS]
        say("θ is a model, θ₀ the base, δ = θ − θ₀, w are weights")
        for name, method in DESCRIPTIONS.items():
            say(f"{name}{'' if method.searchable else ' (nothing to search)'}")
            say(f"    {method.computes}")
            say(f"    for: {method.use_for}")
        for name in installed:
            say(f"{name} (of an installed package)")


@lists.command()
def tasks(
    word: Annotated[
        str | None, typer.Argument(help="Only names with this in them.", show_default=False)
    ] = None,
    job: OfJob = None,
    folders: Folders = None,
    every: Annotated[
        bool, typer.Option("--all", help="Also lm-eval's own names, some ten thousand.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tasks, groups and tags that an objective may name, with their metrics."""
    with answering():
        if as_json:
            from evomerge.api import found_tasks

            say_json(found_tasks(_folders(job, folders), part=word or "", every=every))
            return
        from evomerge.evaluate import list_own, list_tasks

        part = (word or "").lower()
        found = [task for task in list_tasks(_folders(job, folders)) if part in task.name.lower()]
        own = [pair for pair in list_own() if part in pair[0].lower()] if every else []
        _show([(task.name, task.kind, _metrics(task)) for task in found])
        for name, kind in own:
            say(name if kind == "task" else f"{name}  {kind}")
        if not every:
            say_note("lm-eval's own tasks can be named too; --all lists them")


@lists.command()
def metrics(
    tasks: Annotated[list[str], typer.Argument(help="Names of tasks.", show_default=False)],
    job: OfJob = None,
    folders: Folders = None,
    as_json: AsJson = False,
) -> None:
    """Metrics of some tasks, as an objective names them."""
    with answering():
        from evomerge.evaluate import find_task, require_metrics

        where = _folders(job, folders)
        found = [find_task(name, where) for name in tasks]
        for task in found:
            require_metrics(task)
        if as_json:
            from evomerge.api import plain_task

            say_json([plain_task(task) for task in found])
            return
        for task in found:
            say(f"{task.name} ({task.kind})")
            if not task.metrics:
                say("  no metrics of its own; those of its tasks")
            for metric in task.metrics or ():
                direction = "" if metric.higher_is_better else ", better when lower"
                usable = "" if metric.usable else ", no mean over items, so it cannot be used"
                say(f"  {metric.name}{direction}{usable}")


def _folders(job: Path | None, folders: Sequence[Path] | None) -> list[Path]:
    """The folders of the options, then those of the job."""
    from evomerge.evaluate import check_folders

    given = list(folders or ())
    check_folders(given, where="--task-folder")
    if job is None:
        return given
    from evomerge.job import load_job

    return [*given, *map(Path, load_job(job).evaluation.task_folders)]


def _metrics(task: ListedTask) -> str:
    if task.metrics is None:
        return "metrics are known once it is loaded"
    return ", ".join(metric.name for metric in task.metrics if metric.usable)


def _show(rows: Sequence[tuple[str, str, str]]) -> None:
    """Rows in columns."""
    first, second = (max((len(row[n]) for row in rows), default=0) for n in (0, 1))
    for name, kind, text in rows:
        say(f"{name:<{first}}  {kind:<{second}}  {text}".rstrip())
