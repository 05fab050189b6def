"""Opening the database: SQLite or PostgreSQL, read and write transactions, one clock."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy
import sqlalchemy.exc
from sqlalchemy.orm import Session

from evomerge.errors import JobError, StorageError, hide_secrets, one_line

_BUSY_S = 60
"""How long SQLite waits for its one writer. Its lock is not fair, so this must be long."""

_CONNECT_S = 10
_LOCK_S = 60
_TOLD = "told"
"""In the `info` of a session: what its listeners are told at its commit."""

_POOLED = 20
"""Connections of a process at most; a server's threads wait for a free one."""


@dataclass(frozen=True, kw_only=True)
class Database:
    """An open database. shown: its URL without a password.

    listeners: called with what `tell_when_kept` was given, once its transaction is committed.
    """

    engine: sqlalchemy.Engine = field(repr=False)  # its URL may have a password in its query
    shown: str
    listeners: list[Callable[[Any], object]] = field(
        default_factory=list, repr=False, compare=False
    )

    @property
    def url(self) -> str:
        """Its URL with the password, for a process that opens it too."""
        return self.engine.url.render_as_string(hide_password=False)

    @property
    def is_postgres(self) -> bool:
        """Whether it is a server that several hosts may share."""
        return self.engine.dialect.name == "postgresql"

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading. Raises StorageError if the database gives no access."""
        with self._errors(), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose transaction is committed at the end; keep it short.

        SQLite has one writer at a time, from the first line on. Raises StorageError.
        """
        engine = self.engine.execution_options(evomerge_writes=True)
        with self._errors(), Session(engine, expire_on_commit=False) as session, session.begin():
            session.connection()  # begins now, and not with the first statement
            yield session
        for what in session.info.get(_TOLD, ()):
            for listener in self.listeners:
                listener(what)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        with storage_errors(self.shown):
            yield


def tell_when_kept(session: Session, what: object) -> None:
    """Tell the listeners of the database once the transaction is committed; else never."""
    session.info.setdefault(_TOLD, []).append(what)


class NoAccess(StorageError):
    """The database gives no access; the text names it, so it is for the operator alone."""


def shown_to_all(error: BaseException) -> str:
    """The line of an error for those who see a job: it does not name the service's database."""
    if isinstance(error, NoAccess):
        return "the service's database gives no access; the server's log says why"
    return one_line(error)


class Damaged(NoAccess):
    """The file of an embedded database is no database any more."""


DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextlib.contextmanager
def storage_errors(shown: str) -> Iterator[None]:
    """Raise NoAccess in one line, without a password, where the database gives no access."""
    try:
        yield
    except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError) as error:
        raise _no_access(shown, error) from None
    except sqlalchemy.exc.DatabaseError as error:
        # The low byte is the kind of an error of SQLite; the others say more of it.
        if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF not in DAMAGE:
            raise
        raise Damaged(
            f"{shown}: the database is damaged ({one_line(error.orig)}); stop the servers, and "
            "put a backup in its place with `evomerge backup restore`"
        ) from None
    except sqlalchemy.exc.TimeoutError as error:
        raise NoAccess(
            f"{shown}: all connections are in use ({one_line(error)[:80]}); try again"
        ) from None


def _no_access(shown: str, error: sqlalchemy.exc.DBAPIError) -> NoAccess:
    reason = one_line(hide_secrets(str(error.orig)))
    mend = (
        "check the server and the name of the database; a password is read from PGPASSWORD or "
        "~/.pgpass"
        if shown.startswith("postgres")
        else "check the folder, its permissions and the room on the disk"
    )
    return NoAccess(f"{shown}: the database gives no access ({reason}); {mend}")


def open_database(url: str) -> Database:
    """Open a database; the file and folder of an embedded one are made, but no tables.

    Raises JobError for a URL that cannot be used, StorageError.
    """
    try:
        parsed = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        parsed = None
    backend = None if parsed is None else parsed.get_backend_name()
    if parsed is None or backend not in ("sqlite", "postgresql"):
        raise JobError(
            f"--database: {hide_secrets(url)}: not a database; write "
            "postgresql+psycopg://USER@HOST/DATABASE, or leave it out"
        )
    shown = hide_secrets(parsed.render_as_string(hide_password=True))
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise JobError(f"--database: {shown}: names no file; write sqlite:////PATH")
        parsed = parsed.set(database=os.path.abspath(parsed.database))
        folder = Path(parsed.database or "").parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StorageError(
                f"{folder}: cannot be made ({error.strerror}); give another --data"
            ) from error
        engine = sqlalchemy.create_engine(
            parsed,
            connect_args={"timeout": _BUSY_S},
            hide_parameters=True,
            pool_size=_POOLED,
            max_overflow=0,
            # Each connection keeps pages of its own, so a few are used for all but the rare rush.
            pool_use_lifo=True,
        )
        _let_sqlite_begin_as_asked(engine)
    else:
        engine = _postgres(parsed, shown)
    return Database(engine=engine, shown=shown)


def _postgres(url: sqlalchemy.URL, shown: str) -> sqlalchemy.Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    settings = {
        "lock_timeout": f"{_LOCK_S}s",
        # Nothing of the service holds a transaction open for longer.
        "idle_in_transaction_session_timeout": f"{_LOCK_S}s",
    }
    arguments: dict[str, Any] = {
        "connect_timeout": _CONNECT_S,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "application_name": "evomerge serve",
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
    }
    kept = {name: value for name, value in arguments.items() if name not in url.query}
    try:
        return sqlalchemy.create_engine(
            url,
            connect_args=kept,
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=_POOLED // 2,
            max_overflow=_POOLED // 2,
        )
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise JobError(
            f"--database: {shown}: cannot be opened ({one_line(error)}); install the extra "
            "`service`, and write postgresql+psycopg://"
        ) from error


def _let_sqlite_begin_as_asked(engine: sqlalchemy.Engine) -> None:
    """Python's driver would begin a transaction late, so that a writer may fail halfway."""

    @sqlalchemy.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_S * 1000}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        writes = connection.get_execution_options().get("evomerge_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def now(session: Session) -> float:
    """Seconds since the epoch by the database's clock, which all servers share."""
    if session.get_bind().dialect.name == "postgresql":
        clock = sqlalchemy.text("select extract(epoch from clock_timestamp())::float8")
        return float(session.execute(clock).scalar_one())
    return time.time()


def lock(session: Session, name: str) -> None:
    """Wait until no other transaction holds this name; SQLite's writer is alone already."""
    if session.get_bind().dialect.name == "postgresql":
        statement = sqlalchemy.text("select pg_advisory_xact_lock(:key)")
        session.execute(statement, {"key": lock_key(name)})


def lock_key(name: str) -> int:
    """The number of an advisory lock, a signed integer of 64 bits."""
    digest = hashlib.sha256(f"evomerge serve {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
