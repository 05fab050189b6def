"""Writes a new job file from the answers of a user, after the checks that need no large library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.api.arguments import check_names_of
from evomerge.errors import JobError
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
    text = draft.text(out)
    job = parse_job(text, where=str(out))
    check_names_of(job)
    for search in job.searches:
        read_space(search.search_space)
    with out.open("x", encoding="utf-8") as file:
        file.write(text)
    return job


def refuse_written(out: Path) -> None:
    """Raise JobError if there is a file already."""
    if out.exists() or out.is_symlink():
        raise JobError(f"{out}: exists already; name another file with --out")
