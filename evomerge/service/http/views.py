"""What the routes answer of jobs, people and acts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from evomerge.service.store.audit import AuditEntry
from evomerge.service.store.jobs import Cause, Job, Kind, State, Wanted
from evomerge.service.store.people import Project, Role, Token


class View(BaseModel):
    """What the server answers."""

    model_config = ConfigDict(protected_namespaces=())


def moment(seconds: float | None) -> datetime | None:
    """Seconds since the epoch as a time in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


class JobView(View):
    """A job."""

    id: str = Field(examples=["jx3k5q7n2a4b6c8d"])
    project: str = Field(description="The project's name.", examples=["default"])
    owner: str = Field(description="The person who submitted it.", examples=["ana"])
    kind: Kind
    name: str
    state: State
    wanted: Wanted = Field(description="What was asked for: a running job may be about to pause.")
    priority: int
    place: float = Field(description="Order in the queue among equal priorities.")
    not_before: datetime | None
    max_duration_s: float | None = Field(
        description="The most seconds over all attempts since a person submitted, retried or "
        "resumed it."
    )
    retries: int = Field(description="How often it was to be tried again after a failure.")
    retries_left: int = Field(description="How many of these are left.")
    attempts: int
    cause: Cause | None = Field(description="Why the last attempt failed.")
    message: str | None = Field(description="The last failure in one line.")
    server: str | None = Field(description="The server whose runner has it.")
    made: datetime
    queued: datetime | None
    started: datetime | None
    ended: datetime | None
    deleted: datetime | None
    used_s: float = Field(description="Seconds of all its attempts so far.")
    parent: str | None = Field(description="The job that it is an export or a clone of.")
    last_event: int = Field(description="Number of its last event.")
    track: dict[str, dict[str, str]] = Field(description="Trackers in which it is shown.")
    result: dict[str, Any] | None

    @classmethod
    def of(cls, job: Job, projects: Mapping[str, str]) -> JobView:
        """A job as the store keeps it; projects: id -> name."""
        return cls(**_facts_of(job, projects))


class JobDetail(JobView):
    """A job with what was asked for."""

    request: dict[str, Any] = Field(description="The JobSpec of a search, as it will run.")

    @classmethod
    def of(cls, job: Job, projects: Mapping[str, str]) -> JobDetail:
        """A job as the store keeps it; projects: id -> name."""
        return cls(**_facts_of(job, projects), request=dict(job.request))


def _facts_of(job: Job, projects: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": job.id,
        "project": projects.get(job.project, job.project),
        "owner": job.owner,
        "kind": job.kind,
        "name": job.name,
        "state": job.state,
        "wanted": job.wanted,
        "priority": job.priority,
        "place": job.place,
        "not_before": moment(job.not_before),
        "max_duration_s": job.max_duration_s,
        "retries": job.retries,
        "retries_left": job.retries_left,
        "attempts": job.attempts,
        "cause": job.cause,
        "message": job.message,
        "server": job.server,
        "made": moment(job.made),
        "queued": moment(job.queued),
        "started": moment(job.started),
        "ended": moment(job.ended),
        "deleted": moment(job.deleted),
        "used_s": job.used_s,
        "parent": job.parent,
        "last_event": job.last_event,
        "track": {name: dict(options) for name, options in job.track.items()},
        "result": None if job.result is None else dict(job.result),
    }


class JobPage(View):
    """Part of a list of jobs, the newest first."""

    items: list[JobView]
    cursor: str | None = Field(description="Gives the next page; null at the end.")
    total: int


class Validation(View):
    """A job that would be accepted. The checks of models and tasks are those of a `check` job."""

    name: str
    kind: Kind
    request: dict[str, Any]
    yaml: str = Field(description="The job file.")


class ProjectView(View):
    """A project."""

    id: str
    name: str
    made: datetime

    @classmethod
    def of(cls, project: Project) -> ProjectView:
        """A project as the store keeps it."""
        return cls(id=project.id, name=project.name, made=datetime.fromtimestamp(project.made, UTC))


class TokenView(View):
    """A token without its secret."""

    id: str
    name: str
    person: str
    role: Role
    projects: list[str] | None = Field(description="Names of projects; null: all.")
    made: datetime | None
    expires: datetime | None
    revoked: datetime | None
    last_used: datetime | None

    @classmethod
    def of(cls, token: Token, projects: Mapping[str, str]) -> TokenView:
        """A token as the store keeps it; projects: id -> name."""
        return cls(**_token_facts(token, projects))


class MadeToken(TokenView):
    """A new token. This is the only time that its secret is shown."""

    secret: str


def _token_facts(token: Token, projects: Mapping[str, str]) -> dict[str, Any]:
    listed = token.projects
    return {
        "id": token.id,
        "name": token.name,
        "person": token.person,
        "role": token.role,
        "projects": None if listed is None else [projects.get(each, each) for each in listed],
        "made": moment(token.made),
        "expires": moment(token.expires),
        "revoked": moment(token.revoked),
        "last_used": moment(token.last_used),
    }


def made_token(token: Token, secret: str, projects: Mapping[str, str]) -> MadeToken:
    """A new token with its secret."""
    return MadeToken(**_token_facts(token, projects), secret=secret)


class SessionView(View):
    """Who is logged in. csrf: for the header X-CSRF-Token; null where a token was sent."""

    person: str
    role: Role
    token: str = Field(description="Id of the token.")
    projects: list[str] | None
    csrf: str | None
    expires: datetime | None


class AuditView(View):
    """An act."""

    id: int
    at: datetime
    who: str
    token: str | None
    act: str = Field(examples=["job.submit"])
    what: str
    project: str | None
    address: str | None
    detail: dict[str, Any]

    @classmethod
    def of(cls, entry: AuditEntry, projects: Mapping[str, str]) -> AuditView:
        """An act as the store keeps it; projects: id -> name."""
        return cls(
            id=entry.id,
            at=datetime.fromtimestamp(entry.at, UTC),
            who=entry.who,
            token=entry.token_id,
            act=entry.act,
            what=entry.what,
            project=None if entry.project is None else projects.get(entry.project, entry.project),
            address=entry.from_address,
            detail=dict(entry.detail),
        )


class AuditPage(View):
    """Part of the audit log, the newest first."""

    items: list[AuditView]
    cursor: str | None
    total: int
