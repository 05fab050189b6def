"""The command `evomerge import`: a file of mergekit becomes a job."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.endings import answering, say, say_note

MergekitFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A configuration of mergekit-evolve, or any mergekit YAML.",
        show_default=False,
    ),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task", metavar="NAME:METRIC", help="An objective, if FILE has none; may be repeated."
    ),
]
TaskFolders = Annotated[
    list[str] | None,
    typer.Option("--task-folder", metavar="DIR", help="A folder of your own tasks."),
]
Base = Annotated[
    str | None, typer.Option(help="The base model, if FILE is a merge that names none.")
]
SearchName = Annotated[
    str | None, typer.Option(help="Name of the search; that of the file if not given.")
]
Candidates = Annotated[int | None, typer.Option(help="Budget in candidates.")]
Hours = Annotated[float | None, typer.Option(help="Budget in worker hours.")]


def import_file(
    file: MergekitFile,
    out: Annotated[Path, typer.Option(help="The file to write; it must not exist.")] = Path(
        "job.yaml"
    ),
    tasks: Tasks = None,
    folders: TaskFolders = None,
    base: Base = None,
    name: SearchName = None,
    candidates: Candidates = None,
    hours: Hours = None,
) -> None:
    """Make a job of a mergekit-evolve configuration, or of a merge as the start of a search.

    What could not be carried over as it is in FILE is noted, and is in the job as comments.
    """
    with answering():
        from evomerge.api import import_job

        imported = import_job(
            file,
            out,
            tasks=tasks or (),
            task_folders=folders or (),
            base=base,
            name=name,
            candidates=candidates,
            hours=hours,
        )
        for note in imported.notes:
            say_note(note)
        say(f"job: {out}")
        say(f"next: evomerge check {shlex.quote(str(out))}")
