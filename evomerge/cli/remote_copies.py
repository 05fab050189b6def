"""Commands of `evomerge --server URL` that make a job of something else: clone, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.endings import say, say_note
from evomerge.cli.imports import Base, Candidates, Hours, MergekitFile, SearchName, TaskFolders
from evomerge.cli.imports import Tasks as TaskNames
from evomerge.cli.options import Overrides, Track
from evomerge.cli.remote import connected
from evomerge.cli.remote_options import (
    Detach,
    JobId,
    MaxDuration,
    Name,
    NotBefore,
    Priority,
    Project,
    Retries,
    clone_options,
    queue_options,
)
from evomerge.cli.remote_results import go_on, program_of


def clone(
    job_id: JobId,
    overrides: Overrides = None,
    name: Name = None,
    priority: Annotated[
        int | None, typer.Option(help="Higher ones run first; as the job if not given.")
    ] = None,
    not_before: NotBefore = None,
    max_duration: MaxDuration = None,
    retries: Annotated[
        int | None,
        typer.Option(help="Tries after a failure; as many as the job was given if not given here."),
    ] = None,
    track: Track = None,
    detach: Detach = False,
) -> None:
    """Submit a copy of a job with changes, and watch it; exit codes as of the job's command."""
    with connected() as server:
        options = clone_options(
            name=name,
            priority=priority,
            not_before=not_before,
            max_duration=max_duration,
            retries=retries,
            track=track,
        )
        made = server.job(job_id).clone(set=overrides, **options)
        go_on(server, made, detach=detach)


def import_file(
    file: MergekitFile,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; the job is printed if not given.")
    ] = None,
    tasks: TaskNames = None,
    folders: TaskFolders = None,
    base: Base = None,
    name: SearchName = None,
    candidates: Candidates = None,
    hours: Hours = None,
    submit: Annotated[bool, typer.Option("--submit", help="Submit it as a search.")] = False,
    project: Project = None,
    priority: Priority = None,
    not_before: NotBefore = None,
    max_duration: MaxDuration = None,
    retries: Retries = None,
    detach: Detach = False,
) -> None:
    """Make a job of a mergekit-evolve configuration, or of a merge as the start of a search.

    The models must be here, under the names that they have on the server, which then checks the
    job. What could not be carried over as it is in FILE is noted, and is in the job as comments.
    """
    with connected() as server:
        from evomerge.api import import_job

        options = queue_options(
            project=project,
            name=None,
            priority=priority,
            not_before=not_before,
            max_duration=max_duration,
            retries=retries,
        )
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
        if out is not None:
            say(f"job: {out}")
        if submit:
            made = server.search(imported.job, **options)
            go_on(server, made, detach=detach)
            return
        if out is None:
            for line in imported.text.splitlines():
                say(line)
        server.validate("search", {"job": imported.job.model_dump(mode="json")}, **options)
        if out is not None:
            say(f"next: {program_of(server)} check {out}")
