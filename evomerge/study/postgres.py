"""A record in PostgreSQL: tables are made once, one process writes a study, every wait has a limit.

A writer holds an advisory lock of the database, named by the study, on its own connection. The
server frees the lock when that connection ends, even if the process or its machine dies.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
import sqlalchemy.exc

from evomerge.errors import JobError, RunError, StorageError, one_line
from evomerge.study.trial_rows import TrialStorage

_CONNECT_S = 10
_SILENCE_S = 30
_LOCK_S = 60
_CONNECT_TRIES = 8
"""A server that restarts needs some seconds."""

_LOCK_TRIES = 3
"""A server notices a little later that a writer was killed."""

_BETWEEN_TRIES_S = 0.5
_NAME_BYTES = 63
"""PostgreSQL cuts longer names of a connection."""

_TABLES = ("studies", "trials", "version_info", "alembic_version")


def open_postgres(url: str, *, run_dir: Path) -> optuna.storages.RDBStorage:
    """The studies of a database, for writing; missing tables are made.

    Raises JobError if the driver is not installed, StorageError if the server gives no access.
    """
    options = _engine_options(url, run_dir)
    with _access_errors(url):
        engine = sqlalchemy.create_engine(url, **options)
        try:
            with engine.begin() as connection:
                # Two processes that make the same tables at once fail, so one waits.
                _execute(connection, "select pg_advisory_xact_lock(:key)", _key("tables"))
                return TrialStorage(url, engine_kwargs=options)
        finally:
            engine.dispose()


def read_postgres(url: str, *, run_dir: Path) -> sqlalchemy.Engine:
    """A database for reading; nothing is made.

    Raises the errors of open_postgres, and RunError if it has no studies.
    """
    with _access_errors(url):
        engine = sqlalchemy.create_engine(url, **_engine_options(url, run_dir))
        with engine.connect() as connection:
            there = all(map(sqlalchemy.inspect(connection).has_table, _TABLES))
        if not there:
            engine.dispose()
            raise RunError(f"storage: {url}: holds no search; nothing is recorded there")
        return engine


class WriterLock:
    """The lock for writing one study, from whatever folder. Raises RunError when it is taken."""

    def __init__(self, engine: sqlalchemy.Engine, study: str, *, run_dir: Path) -> None:
        self._engine = engine
        self._study = study
        self._run_dir = run_dir
        self._connection = self._take()

    def lost(self) -> bool:
        """Whether the connection had ended; if so, the lock is taken again.

        Another process may have written meanwhile. Raises RunError if another process holds the
        lock, StorageError if the server does not answer any more.
        """
        try:
            _execute(self._connection, "select 1")
        except sqlalchemy.exc.SQLAlchemyError:
            self.release()
            self._connection = self._take()
            return True
        return False

    def release(self) -> None:
        """End the connection, and the lock with it."""
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
            self._connection.close()

    def _take(self) -> sqlalchemy.Connection:
        refusals = 0
        while True:
            connection = self._connect()
            if _execute(connection, "select pg_try_advisory_lock(:key)", _key(self._study)):
                return connection
            holder = _execute(connection, _HOLDER, _key(self._study))
            connection.close()
            refusals += 1
            if refusals == _LOCK_TRIES:
                break
            time.sleep(_BETWEEN_TRIES_S)
        raise RunError(
            f"{self._run_dir}: another process writes the study {self._study} of this database"
            f"{f' ({holder})' if holder else ''}; wait for it or stop it, or give the job another "
            "name"
        )

    def _connect(self) -> sqlalchemy.Connection:
        """A connection outside the pool; a pooled one would keep the lock after it is closed."""
        for left in reversed(range(_CONNECT_TRIES)):
            try:
                connection = self._engine.connect()
                break
            except sqlalchemy.exc.DBAPIError:
                if not left:
                    raise
                time.sleep(_BETWEEN_TRIES_S)
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.detach()
        return connection


_HOLDER = """
select a.application_name || ', process ' || a.pid || ' of the server'
from pg_locks l join pg_stat_activity a using (pid)
where l.locktype = 'advisory' and l.granted and l.objsubid = 1
and (l.classid::bigint << 32) | l.objid::bigint = :key
"""


def reason_of(error: BaseException) -> str | None:
    """The message of the server or its driver in one line; None for any other error."""
    cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
    original = getattr(cause, "orig", None)
    if type(original).__module__.partition(".")[0] != "psycopg":
        return None
    return one_line(original)


@contextlib.contextmanager
def _access_errors(url: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise JobError(
            f"storage: {url}: cannot be opened ({one_line(error)}); install the extra `postgres`"
        ) from error
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = reason_of(error) or one_line(error)
        raise StorageError(
            f"storage: {url}: the database gives no access ({reason}); check the server and the "
            "name of the database; a password is read from PGPASSWORD or ~/.pgpass"
        ) from error


def _engine_options(url: str, run_dir: Path) -> dict[str, Any]:
    """Options that limit every wait for the server; the URL's own options are kept."""
    settings = {
        "lock_timeout": f"{_LOCK_S}s",
        # So the server notices that a writer's machine is gone, and frees the lock.
        "tcp_keepalives_idle": _SILENCE_S,
        "tcp_keepalives_interval": 10,
        "tcp_keepalives_count": 3,
    }
    arguments = {
        "connect_timeout": _CONNECT_S,
        "keepalives_idle": _SILENCE_S,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 1000 * 2 * _SILENCE_S,
        "application_name": _name_of(run_dir),
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
    }
    query = sqlalchemy.make_url(url).query
    kept = {name: value for name, value in arguments.items() if name not in query}
    # pool_pre_ping replaces a connection that ended while it was not in use.
    return {"connect_args": kept, "pool_pre_ping": True}


def _name_of(run_dir: Path) -> str:
    """The name of a connection on the server: host and run directory (the end of a long path)."""
    start = f"evomerge {socket.gethostname()}:"
    path = str(run_dir.resolve()).encode("ascii", errors="replace").decode()
    room = max(0, _NAME_BYTES - len(start))
    return start + (path if len(path) <= room else f"...{path[len(path) - room + 3 :]}")


def _key(name: str) -> int:
    """The number of an advisory lock, a signed integer of 64 bits."""
    digest = hashlib.sha256(f"evomerge {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _execute(connection: sqlalchemy.Connection, statement: str, key: int | None = None) -> Any:
    parameters = {} if key is None else {"key": key}
    return connection.execute(sqlalchemy.text(statement), parameters).scalar()
