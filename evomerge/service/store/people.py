"""People: projects, tokens and browser sessions. Of every secret only a hash is kept."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from evomerge.errors import StorageError
from evomerge.service.database.engine import Database, lock, now
from evomerge.service.database.tables import ProjectRow, SessionRow, TokenRow
from evomerge.service.store.audit import Who, note
from evomerge.service.store.job import new_id
from evomerge.service.store.pages import Scope
from evomerge.service.store.refusals import Conflict, NotFound, Refusal
from evomerge.service.store.texts import LATEST_S, LATEST_TEXT, check_name, check_text, time_text

Role = Literal["viewer", "runner", "admin"]

TOKEN_PREFIX = "evm_"
"""Begins every token, so that texts can hide one, and scanners of repositories find one."""

_NOTED_EVERY_S = 60.0
"""How exactly the last use of a token is kept; a write for each request would cost too much."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project; every job belongs to one."""

    id: str
    name: str
    made: float


@dataclass(frozen=True, kw_only=True)
class Token:
    """A person's token, without its secret. projects: ids; None: all."""

    id: str
    name: str
    person: str
    role: Role
    projects: tuple[str, ...] | None
    made: float
    expires: float | None
    revoked: float | None
    last_used: float | None

    @property
    def scope(self) -> Scope:
        """The projects that it may see."""
        return None if self.projects is None else frozenset(self.projects)


@dataclass(frozen=True, kw_only=True)
class BrowserSession:
    """A browser's session and the token that it stands for."""

    token: Token
    csrf: str
    made: float
    expires: float


def make_project(db: Database, name: str, *, who: Who) -> Project:
    """A new project. Raises Refusal for a bad name, Conflict for one that is taken."""
    check_name(name, field="name", least=1, most=100)
    if name != name.strip():
        raise Refusal("begins or ends with a space", field="name", value=name, mend="leave it out")
    with db.write() as session:
        lock(session, "projects")
        if session.scalars(select(ProjectRow).where(ProjectRow.name == name)).first() is not None:
            raise Conflict("there is one already", field="name", value=name, mend="use another")
        return _project(_add_project(session, name, who))


def projects(db: Database, *, scope: Scope = None) -> tuple[Project, ...]:
    """The projects that the asker may see, by name."""
    query = select(ProjectRow).order_by(ProjectRow.name)
    if scope is not None:
        query = query.where(ProjectRow.id.in_(sorted(scope)))
    with db.read() as session:
        return tuple(_project(row) for row in session.scalars(query))


def project_named(db: Database, name: str, *, scope: Scope = None) -> Project:
    """The project with this id or name. Raises NotFound."""
    check_text(name, field="project", most=100)
    query = select(ProjectRow).where(or_(ProjectRow.id == name, ProjectRow.name == name))
    with db.read() as session:
        found = [_project(row) for row in session.scalars(query)]
    for project in found:
        if scope is None or project.id in scope:
            return project
    raise NotFound("no such project", field="project", value=name, mend="check its name")


def make_token(
    db: Database,
    *,
    name: str,
    person: str,
    role: Role,
    projects: Sequence[str] | None = None,
    expires: float | None = None,
    who: Who,
) -> tuple[Token, str]:
    """A new token and its secret, which is not kept: show it once.

    projects: ids; None: all. expires: seconds since the epoch. Raises Refusal, NotFound.
    """
    check_name(name, field="name", least=1, most=100)
    check_name(person, field="person", least=1, most=100)
    if role not in get_args(Role):
        raise Refusal(
            "not a role", field="role", value=role, mend=f"give {', '.join(get_args(Role))}"
        )
    with db.write() as session:
        at = now(session)
        if expires is not None:
            _check_expiry(expires, at)
        for project in projects or ():
            check_text(project, field="projects", most=100)
            if session.get(ProjectRow, project) is None:
                raise NotFound(
                    "no such project", field="projects", value=project, mend="check its name"
                )
        scope = None if projects is None else sorted(set(projects))
        row, secret = _add_token(
            session,
            TokenRow(name=name, person=person, role=role, projects=scope, made=at, expires=expires),
            who,
        )
        return _token(row), secret


def make_first_admin(db: Database, *, project: str, who: Who) -> str | None:
    """Where no admin's token can be used, a new one's secret; and a project where there is none.

    Of several servers that start at once, one makes them and the others return None.
    """
    if has_admin(db):
        return None
    with db.write() as session:
        lock(session, "projects")
        if _has_admin(session):
            return None
        if session.scalars(select(ProjectRow)).first() is None:
            _add_project(session, project, who)
        row = TokenRow(name="first start", person="admin", role="admin", made=now(session))
        return _add_token(session, row, who)[1]


def token_of(db: Database, secret: str) -> Token | None:
    """The token of a secret; None if there is none, or it is revoked or has expired."""
    with db.read() as session:
        row = session.scalars(select(TokenRow).where(TokenRow.hash == _hash(secret))).one_or_none()
        at = now(session)
    if row is None or not _usable(row, at):
        return None
    if row.last_used is None or at - row.last_used > _NOTED_EVERY_S:
        # A full disk does not keep people from reading.
        with contextlib.suppress(StorageError), db.write() as session:
            used = session.get(TokenRow, row.id, with_for_update=True)
            if used is not None:
                used.last_used = at
    return _token(row)


def tokens(db: Database, *, person: str | None = None) -> tuple[Token, ...]:
    """All tokens, newest first, with revoked and expired ones."""
    query = select(TokenRow).order_by(TokenRow.made.desc(), TokenRow.id)
    if person is not None:
        check_text(person, field="person", most=100)
        query = query.where(TokenRow.person == person)
    with db.read() as session:
        return tuple(_token(row) for row in session.scalars(query))


def has_admin(db: Database) -> bool:
    """Whether an admin's token can be used: neither revoked nor expired."""
    with db.read() as session:
        return _has_admin(session)


def revoke(db: Database, token_id: str, *, who: Who) -> Token:
    """Revoke a token and end its sessions. Raises NotFound."""
    check_text(token_id, field="token", most=100)
    with db.write() as session:
        row = session.get(TokenRow, token_id, with_for_update=True)
        if row is None:
            raise NotFound("no such token", field="token", value=token_id, mend="check its id")
        if row.revoked is None:
            row.revoked = now(session)
            session.execute(delete(SessionRow).where(SessionRow.token_id == row.id))
            note(session, who, "token.revoke", row.id, detail={"name": row.name})
        session.flush()
        return _token(row)


def make_session(
    db: Database, token: Token, *, lasts_s: float, who: Who
) -> tuple[BrowserSession, str]:
    """A new session and its secret, for a cookie. Raises NotFound if the token is revoked."""
    secret = secrets.token_urlsafe(32)
    with db.write() as session:
        at = now(session)
        row = session.get(TokenRow, token.id, with_for_update=True)
        if row is None or not _usable(row, at):
            raise NotFound(
                "it cannot be used any more",
                field="token",
                value=token.id,
                mend="log in with another token",
            )
        session.execute(delete(SessionRow).where(SessionRow.expires < at))
        expires = at + lasts_s if row.expires is None else min(at + lasts_s, row.expires)
        csrf = secrets.token_urlsafe(32)
        kept = SessionRow(hash=_hash(secret), token_id=row.id, csrf=csrf, made=at, expires=expires)
        session.add(kept)
        note(session, who, "session.begin", row.id)
        return BrowserSession(token=_token(row), csrf=csrf, made=at, expires=expires), secret


def session_of(db: Database, secret: str) -> BrowserSession | None:
    """The session of a cookie's secret; None if it, or its token, cannot be used any more."""
    with db.read() as session:
        kept = session.get(SessionRow, _hash(secret))
        row = None if kept is None else session.get(TokenRow, kept.token_id)
        at = now(session)
        if kept is None or row is None or kept.expires <= at or not _usable(row, at):
            return None
        return BrowserSession(
            token=_token(row), csrf=kept.csrf, made=kept.made, expires=kept.expires
        )


def end_session(db: Database, secret: str, *, who: Who) -> None:
    """End a session; nothing happens if there is none."""
    with db.write() as session:
        kept = session.get(SessionRow, _hash(secret))
        if kept is not None:
            note(session, who, "session.end", kept.token_id)
            session.delete(kept)


def _check_expiry(expires: float, at: float) -> None:
    if expires <= at:
        raise Refusal(
            "not in the future",
            field="expires",
            value=time_text(expires),
            mend="give a later time",
        )
    if expires > LATEST_S:
        raise Refusal(
            f"after {LATEST_TEXT}, the latest time here",
            field="expires",
            value=time_text(expires),
            mend="give an earlier time, or none for a token without an end",
        )


def _hash(secret: str) -> str:
    """sha256; a secret of 32 random bytes needs no slower one."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _usable(row: TokenRow, at: float) -> bool:
    return row.revoked is None and (row.expires is None or row.expires > at)


def _has_admin(session: Session) -> bool:
    rows = session.scalars(select(TokenRow).where(TokenRow.role == "admin")).all()
    return any(_usable(row, now(session)) for row in rows)


def _add_project(session: Session, name: str, who: Who) -> ProjectRow:
    row = ProjectRow(id=new_id("p"), name=name, made=now(session))
    session.add(row)
    note(session, who, "project.make", row.id, project=row.id, detail={"name": name})
    session.flush()
    return row


def _add_token(session: Session, row: TokenRow, who: Who) -> tuple[TokenRow, str]:
    """Keep a token, with an id and the hash of a new secret; returns the secret too."""
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    row.id, row.hash = new_id("t"), _hash(secret)
    session.add(row)
    detail = {"name": row.name, "person": row.person, "role": row.role, "projects": row.projects}
    note(session, who, "token.make", row.id, detail=detail)
    session.flush()
    return row, secret


def _project(row: ProjectRow) -> Project:
    return Project(id=row.id, name=row.name, made=row.made)


def _token(row: TokenRow) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        person=row.person,
        role=cast(Role, row.role),
        projects=None if row.projects is None else tuple(row.projects),
        made=row.made,
        expires=row.expires,
        revoked=row.revoked,
        last_used=row.last_used,
    )
