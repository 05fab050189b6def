"""Opening the database: SQLite or PostgreSQL, read and write transactions, one clock."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy
from sqlalchemy.orm import Session


@dataclass(frozen=True, kw_only=True)
class Database:
    """An open database. shown: its URL without a password."""

    engine: sqlalchemy.Engine
    shown: str

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading."""
        raise NotImplementedError
        yield

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose transaction is committed at the end; keep it short."""
        raise NotImplementedError
        yield

    def close(self) -> None:
        """Close all connections."""
        raise NotImplementedError


def open_database(url: str) -> Database:
    """Open a database; nothing is made. Raises StorageError, JobError in one line."""
    raise NotImplementedError


def migrate(database: Database) -> None:
    """Make or change the tables to what this version needs; safe for several at once."""
    raise NotImplementedError


def check_schema(database: Database) -> None:
    """Raise StorageError if the tables are not those of this version."""
    raise NotImplementedError
