"""What a client submits: the request of each kind of job, and how the queue treats it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from evomerge.documents import parse_value
from evomerge.errors import InputError, JobError

if TYPE_CHECKING:
    from evomerge.api import Changes, Grid, Job


class QueueOptions(TypedDict, total=False):
    """How the queue treats a job. What is left out is as the server has it.

    project: name or id; the token's only project, or `default`. name: shown in lists. priority:
    higher ones run first. not_before: when it may start, with a time zone. max_duration_s: the most
    seconds that it may run, over all attempts. retries: how often it is tried again after a
    failure. key: the same key gives the job that it made before; made anew if not given.
    """

    project: str | None
    name: str | None
    priority: int | None
    not_before: datetime | str | None
    max_duration_s: float | None
    retries: int | None
    key: str | None


class CloneOptions(TypedDict, total=False):
    """How the queue treats a copy of a job; see `QueueOptions`. It is in the same project."""

    name: str | None
    priority: int | None
    not_before: datetime | str | None
    max_duration_s: float | None
    retries: int | None
    key: str | None


def queue_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as the server takes them, without the key. Raises InputError."""
    fields = {name: value for name, value in options.items() if name != "key"}
    moment = fields.get("not_before")
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise InputError(
                f"not_before: {moment}: has no time zone; give one, as moment.astimezone() does"
            )
        fields["not_before"] = moment.isoformat()
    return fields


def key_header(key: str | None) -> dict[str, str]:
    """The header that lets a request be sent again, so that it makes one job."""
    return {"Idempotency-Key": key or secrets.token_urlsafe(16)}


def job_document(job: Job, changes: Changes) -> dict[str, Any]:
    """A job in plain values, read and checked here first. Raises JobError."""
    from evomerge.api import read_job

    document: dict[str, Any] = read_job(job, changes).model_dump(mode="json")
    return document


def grid_document(grid: Grid, changes: Changes) -> dict[str, Any]:
    """A grid in plain values, read and checked here first. Raises JobError."""
    from evomerge.api import read_grid

    document: dict[str, Any] = read_grid(grid, changes).model_dump(mode="json")
    return document


def model_or_recipe(model: str | Path) -> dict[str, Any]:
    """A model as the server has it, or the text of a recipe that is here. Raises InputError."""
    name = str(model)
    if not name.endswith((".yaml", ".yml")):
        return {"model": name}
    from evomerge.recipe import load_recipe

    return {"recipe": load_recipe(Path(name)).to_yaml()}


def plain_changes(changes: Changes) -> dict[str, Any]:
    """Changes in any of their forms, in plain values by dotted keys. Raises JobError."""
    from evomerge.api import written_changes

    found = {}
    for change in written_changes(changes):
        key, separator, text = change.partition("=")
        if not separator or not key:
            raise JobError(f"--set {change}: write it as key.subkey=value")
        found[key] = parse_value(text, where=f"--set {change}", error=JobError)
    return found
