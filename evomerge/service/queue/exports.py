"""What an export may be asked for: which candidate, as what, and to where it may be pushed.

The hub's token is the server's, so its operator says in which organisations repositories may be
made. One that was there before is not written to, unless an export of the same project made it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import select

from evomerge.api import has_token, is_repo
from evomerge.job import Section, check_sections
from evomerge.service.database.engine import Database
from evomerge.service.database.tables import JobRow
from evomerge.service.settings import ServiceSettings
from evomerge.service.store.job import Job
from evomerge.service.store.refusals import Refusal

MADE = "pushed"
"""A file in the run folder of an export that found its repository not there, and makes it."""


class ExportRequest(Section):
    """What an export is asked for; see `evomerge.export`."""

    trial: str | None = Field(default=None, max_length=200)
    point: str | None = Field(default=None, max_length=1000)
    verify: bool = False
    as_adapter: bool = False
    rank: Annotated[int, Field(ge=1, le=2**20)] | None = None
    push: str | None = Field(default=None, max_length=200)
    public: bool = False


def complete_export(request: Mapping[str, Any], settings: ServiceSettings) -> dict[str, Any]:
    """The request in plain values. Raises Refusal, JobError."""
    export: ExportRequest = check_sections(ExportRequest, request, where="")
    if export.trial is not None and export.point is not None:
        raise Refusal(
            "`trial` names a candidate already",
            field="point",
            value=export.point,
            mend="give one of the two",
        )
    if export.trial is not None and re.fullmatch(r"g-?\d{1,9}-i\d{1,9}", export.trial) is None:
        raise Refusal(
            "not a candidate",
            field="trial",
            value=export.trial,
            mend="name one as /candidates lists them, like g0012-i003",
        )
    if export.rank is not None and not export.as_adapter:
        raise Refusal(
            "it is the rank of an adapter", field="rank", value=export.rank, mend="set as_adapter"
        )
    push = _push(export.push, settings, public=export.public)
    plain: dict[str, Any] = {**export.model_dump(mode="json"), "push": push}
    return plain


def _push(repo: str | None, settings: ServiceSettings, *, public: bool) -> str | None:
    """The repository, its organisation as the operator writes it. Raises Refusal."""
    if repo is None:
        if public:
            raise Refusal("nothing is pushed", field="public", value=public, mend="give push too")
        return None
    allowed = {name.lower(): name for name in settings.push_organisations}
    organisation, _, name = repo.partition("/")
    if not allowed:
        raise Refusal(
            "nothing may be pushed from this service",
            field="push",
            value=repo,
            mend="leave it out, or ask the operator to allow an organisation (--allow-push)",
        )
    if organisation.lower() not in allowed:
        raise Refusal(
            "not an organisation to which this service may push",
            field="push",
            value=repo,
            mend=f"write {' or '.join(f'{each}/NAME' for each in settings.push_organisations)}",
        )
    if not is_repo(repo):
        raise Refusal(
            "not a name on the hub",
            field="push",
            value=repo,
            mend="write ORG/NAME of letters, digits, -, _ and .",
        )
    if not has_token():
        raise Refusal(
            "there is no token of the hub on this server",
            field="push",
            value=repo,
            mend="leave it out, or ask the operator to set HF_TOKEN",
        )
    if public and not settings.public_push:
        raise Refusal(
            "this service pushes private repositories only",
            field="public",
            value=public,
            mend="leave it out, or ask the operator for --allow-public-push",
        )
    return f"{allowed[organisation.lower()]}/{name}"


def made_here(db: Database, job: Job, repo: str, settings: ServiceSettings) -> bool:
    """Whether this export, or another of its project, has made the repository."""
    exports = select(JobRow).where(JobRow.project == job.project, JobRow.kind == "export")
    with db.read() as session:
        named = [
            row.id
            for row in session.scalars(exports)
            if str(row.request.get("push")).lower() == repo.lower()
        ]
    return any((settings.run_dir(each) / MADE).exists() for each in named)
