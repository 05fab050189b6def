"""The tables of the service, as SQLAlchemy maps them; `migrations/` makes them.

Times are seconds since the epoch. JSON is text, so that both databases keep the same bytes.
"""

from __future__ import annotations

import json
import math
from typing import Any

from sqlalchemy import (
    BigInteger,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Document(TypeDecorator[Any]):
    """Plain values as JSON text; None is NULL."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """To the text that the database keeps."""
        if value is None:
            return None
        # PostgreSQL's text cannot hold NUL; JSON escapes it. Lone surrogates are escaped too.
        try:
            return json.dumps(value, ensure_ascii=True, allow_nan=False)
        except ValueError:
            return json.dumps(_finite(value), ensure_ascii=True, allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """From the text that the database keeps."""
        return None if value is None else json.loads(value)


def _finite(value: Any) -> Any:
    """The value with null for each number that JSON has no form for, such as a score of nothing."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Base(DeclarativeBase):
    """The tables of the service; constraints have names, so that a migration can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: Text, float: Double, int: BigInteger}  # noqa: RUF012


class ProjectRow(Base):
    """A project: who may see a job follows from its project."""

    __tablename__ = "project"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    made: Mapped[float]


class TokenRow(Base):
    """A token of a person; only a hash of its secret is kept."""

    __tablename__ = "token"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    person: Mapped[str] = mapped_column(index=True)
    role: Mapped[str]
    projects: Mapped[list[str] | None] = mapped_column(Document)
    hash: Mapped[str] = mapped_column(unique=True)
    made: Mapped[float]
    expires: Mapped[float | None]
    revoked: Mapped[float | None]
    last_used: Mapped[float | None]


class SessionRow(Base):
    """A browser's session, which lasts no longer than its token."""

    __tablename__ = "session"

    hash: Mapped[str] = mapped_column(primary_key=True)
    token_id: Mapped[str] = mapped_column(ForeignKey("token.id"), index=True)
    csrf: Mapped[str]
    made: Mapped[float]
    expires: Mapped[float]


class AuditRow(Base):
    """Who did what, when and from where."""

    __tablename__ = "audit"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    )
    at: Mapped[float] = mapped_column(index=True)
    who: Mapped[str] = mapped_column(index=True)
    token_id: Mapped[str | None]
    act: Mapped[str]
    what: Mapped[str] = mapped_column(index=True)
    project: Mapped[str | None] = mapped_column(index=True)
    from_address: Mapped[str | None]
    detail: Mapped[Any] = mapped_column(Document, nullable=True)


class JobRow(Base):
    """A job, its place in the queue, and the process that runs it.

    retries: as many as were asked for; retries_left: of these. told: the attempts, from the first
    on, whose end a server has told its log of.
    """

    __tablename__ = "job"
    __table_args__ = (
        UniqueConstraint("owner", "idempotency", name="job_idempotency"),
        Index("job_queue", "state", "priority", "place"),
        Index("job_listed", "project", "made"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(ForeignKey("project.id"))
    owner: Mapped[str]
    kind: Mapped[str]
    name: Mapped[str]
    request: Mapped[dict[str, Any]] = mapped_column(Document)
    changes: Mapped[dict[str, Any]] = mapped_column(Document)
    state: Mapped[str]
    wanted: Mapped[str]
    priority: Mapped[int]
    place: Mapped[float]
    not_before: Mapped[float | None]
    max_duration_s: Mapped[float | None]
    retries: Mapped[int] = mapped_column(server_default=text("0"))
    retries_left: Mapped[int]
    attempts: Mapped[int]
    setbacks: Mapped[int]
    cause: Mapped[str | None]
    message: Mapped[str | None]
    claim: Mapped[int]
    server: Mapped[str | None]
    runner_host: Mapped[str | None]
    runner_boot: Mapped[str | None]
    runner_pid: Mapped[int | None]
    runner_started: Mapped[str | None]
    heartbeat_at: Mapped[float | None]
    made: Mapped[float]
    queued: Mapped[float | None]
    started: Mapped[float | None]
    ended: Mapped[float | None]
    deleted: Mapped[float | None]
    used_s: Mapped[float]
    idempotency: Mapped[str | None]
    request_sha256: Mapped[str]
    parent: Mapped[str | None] = mapped_column(index=True)
    last_event: Mapped[int]
    told: Mapped[int] = mapped_column(server_default=text("0"))
    result: Mapped[dict[str, Any] | None] = mapped_column(Document)
    track: Mapped[dict[str, dict[str, str]] | None] = mapped_column(Document)


class UploadRow(Base):
    """A table that a member of a project has uploaded; its bytes are a file in the data folder."""

    __tablename__ = "upload"
    __table_args__ = (Index("upload_listed", "project", "made"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(ForeignKey("project.id"))
    owner: Mapped[str]
    name: Mapped[str]
    format: Mapped[str]
    size_bytes: Mapped[int]
    sha256: Mapped[str]
    columns: Mapped[list[str]] = mapped_column(Document)
    rows: Mapped[int]
    encoding: Mapped[str | None]
    delimiter: Mapped[str | None]
    header: Mapped[bool]
    made: Mapped[float]


class EventRow(Base):
    """An event of a job; `seq` counts from 1 without gaps."""

    __tablename__ = "event"

    job: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float]
    name: Mapped[str]
    body: Mapped[dict[str, Any]] = mapped_column(Document)


class WebhookRow(Base):
    """An address that is told of a project's jobs.

    kinds: None for all. secret: signs deliveries, so it is kept as it is; old_secret signs too,
    until old_until. failing_since: since then no try has arrived.
    """

    __tablename__ = "webhook"

    id: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    owner: Mapped[str]
    name: Mapped[str]
    url: Mapped[str]
    kinds: Mapped[list[str] | None] = mapped_column(Document)
    secret: Mapped[str]
    old_secret: Mapped[str | None]
    old_until: Mapped[float | None]
    made: Mapped[float]
    disabled: Mapped[float | None]
    disabled_why: Mapped[str | None]
    failing_since: Mapped[float | None]
    last_at: Mapped[float | None]
    last_status: Mapped[int | None]
    last_error: Mapped[str | None]


class DeliveryRow(Base):
    """What a webhook is to be told, or was.

    It refers to its webhook and its job without a foreign key: that one of them is deleted at this
    moment must not stop the job's change of state. next_at: of a waiting one; while a server sends
    it, when another may take it over.
    """

    __tablename__ = "delivery"
    __table_args__ = (
        Index("delivery_due", "state", "next_at"),
        Index("delivery_listed", "webhook", "made"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    webhook: Mapped[str]
    job: Mapped[str | None] = mapped_column(index=True)
    kind: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(Document)
    made: Mapped[float]
    state: Mapped[str]
    attempts: Mapped[int]
    next_at: Mapped[float | None]
    last_at: Mapped[float | None]
    last_status: Mapped[int | None]
    last_error: Mapped[str | None]
    ended: Mapped[float | None]
