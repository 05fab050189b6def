"""Arguments and options that several commands of `evomerge --server URL` have."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, cast

import typer

from evomerge.errors import InputError

if TYPE_CHECKING:
    from evomerge.service import CloneOptions, QueueOptions

JobId = Annotated[str, typer.Argument(metavar="JOB_ID", help="Id of a job.", show_default=False)]
Project = Annotated[str | None, typer.Option(help="Name of the project.")]
Detach = Annotated[bool, typer.Option("--detach", help="Submit it, and do not watch.")]
Name = Annotated[str | None, typer.Option(help="Shown in lists.")]
Priority = Annotated[int | None, typer.Option(help="Higher ones run first; 0 if not given.")]
NotBefore = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Do not start before this, as 2030-01-31T22:00; in this machine's time zone if it "
        "names none.",
    ),
]
MaxDuration = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="The most seconds that it may run, over all attempts."),
]
Retries = Annotated[
    int | None, typer.Option(help="How often it is tried again after a failure; 3 if not given.")
]


def queue_options(
    *,
    project: str | None,
    name: str | None,
    priority: int | None,
    not_before: str | None,
    max_duration: float | None,
    retries: int | None,
) -> QueueOptions:
    """How the queue treats a new job. Raises InputError."""
    copied = clone_options(
        name=name,
        priority=priority,
        not_before=not_before,
        max_duration=max_duration,
        retries=retries,
    )
    options = cast("QueueOptions", dict(copied))
    if project is not None:
        options["project"] = project
    return options


def clone_options(
    *,
    name: str | None,
    priority: int | None,
    not_before: str | None,
    max_duration: float | None,
    retries: int | None,
) -> CloneOptions:
    """How the queue treats a copy of a job: what is not given is left out. Raises InputError."""
    options: CloneOptions = {}
    if name is not None:
        options["name"] = name
    if priority is not None:
        options["priority"] = priority
    if not_before is not None:
        options["not_before"] = _moment(not_before)
    if max_duration is not None:
        options["max_duration_s"] = max_duration
    if retries is not None:
        options["retries"] = retries
    return options


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.astimezone()
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"--not-before: {text}: not a time; write it as 2030-01-31T22:00 or "
            "2030-01-31T22:00+01:00"
        ) from error
