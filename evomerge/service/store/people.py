"""People: projects, tokens and browser sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evomerge.service.database.engine import Database
from evomerge.service.store.audit import Who
from evomerge.service.store.pages import Scope

Role = Literal["viewer", "runner", "admin"]


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
    raise NotImplementedError


def projects(db: Database, *, scope: Scope = None) -> tuple[Project, ...]:
    """The projects that the asker may see, by name."""
    raise NotImplementedError


def project_named(db: Database, name: str, *, scope: Scope = None) -> Project:
    """The project with this id or name. Raises NotFound."""
    raise NotImplementedError


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

    projects: ids; None: all. Raises Refusal.
    """
    raise NotImplementedError


def token_of(db: Database, secret: str) -> Token | None:
    """The token of a secret; None if there is none, or it is revoked or has expired."""
    raise NotImplementedError


def tokens(db: Database, *, person: str | None = None) -> tuple[Token, ...]:
    """All tokens, newest first, with revoked and expired ones."""
    raise NotImplementedError


def has_admin(db: Database) -> bool:
    """Whether an admin's token can be used: neither revoked nor expired."""
    raise NotImplementedError


def revoke(db: Database, token_id: str, *, who: Who) -> Token:
    """Revoke a token and end its sessions. Raises NotFound."""
    raise NotImplementedError


def make_session(
    db: Database, token: Token, *, lasts_s: float, who: Who
) -> tuple[BrowserSession, str]:
    """A new session and its secret, for a cookie."""
    raise NotImplementedError


def session_of(db: Database, secret: str) -> BrowserSession | None:
    """The session of a cookie's secret; None if it, or its token, cannot be used any more."""
    raise NotImplementedError


def end_session(db: Database, secret: str, *, who: Who) -> None:
    """End a session; nothing happens if there is none."""
    raise NotImplementedError
