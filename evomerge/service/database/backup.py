"""Backup and restore of the embedded database; docs/service.md says how PostgreSQL is backed up.

A backup is taken while servers and runners go on. It holds the database alone: run folders, exports
and uploads are files, which are copied with what the operator copies files with.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from evomerge.errors import InputError, StorageError, one_line
from evomerge.service.database.engine import DAMAGE, Damaged, Database, open_database
from evomerge.service.database.schema import head, migrate, revision_of
from evomerge.service.queue.lost import active_jobs
from evomerge.service.settings import DATABASE_FILE, ServiceSettings

_PAGES = 1000
"""Pages copied at a time, so that writers wait for milliseconds only."""


def back_up(database: Database, out: Path) -> Path:
    """Write a copy of the embedded database as it is at this moment.

    Raises InputError where `out` exists or the database is a server, StorageError.
    """
    if database.is_postgres:
        raise InputError(
            f"{database.shown}: is a server; back it up with pg_dump, as docs/service.md says"
        )
    if out.exists():
        raise InputError(f"{out}: exists already; give another file")
    source = Path(database.engine.url.database or "")
    with _writing(out) as part:
        with _opened(source) as before, _opened(part) as after:
            before.backup(after, pages=_PAGES, sleep=0.005)
            # The copy is one file: it is to be moved about without its log.
            after.execute("PRAGMA journal_mode=DELETE")
        _check(part)
    return out


def restore(backup: Path, settings: ServiceSettings) -> Path | None:
    """Put a backup in the place of the embedded database, which is kept beside it.

    Servers must be stopped, and jobs that run must have ended. Jobs that ran when the backup was
    taken are taken as lost by the next server and go on from their records. Returns where the
    database that was there before is now; None if there was none. Raises InputError, StorageError.
    """
    target = settings.data / DATABASE_FILE
    if settings.database is not None:
        raise InputError(
            "--database: is a server; restore it with pg_restore, as docs/service.md says"
        )
    if not backup.is_file():
        raise InputError(f"{backup}: no such file; check the path")
    _check(backup)
    if target.exists():
        _refuse_in_use(settings)
    kept = target.with_name(f"{DATABASE_FILE}.before-{secrets.token_hex(4)}")
    there = target.exists()
    with _writing(target, replace=True) as part:
        with _opened(backup) as before, _opened(part) as after:
            before.backup(after)
        found = open_database(f"sqlite:///{part}")
        try:
            migrate(found)
        finally:
            found.close()
        if there:
            _put_aside(target, kept)
    return kept if there else None


def _put_aside(target: Path, kept: Path) -> None:
    """Give the database that is there another name, with what is not in its file yet.

    Raises InputError while another process has it open.
    """
    try:
        _close_off(target)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in DAMAGE:
            raise
    os.replace(target, kept)
    for name in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(target.with_name(target.name + name), kept.with_name(kept.name + name))


def _refuse_in_use(settings: ServiceSettings) -> None:
    """Raise InputError while a job's process runs; it would write to a database that is gone.

    One that is damaged, or of another version, can be replaced: often that is why a backup is put
    in its place.
    """
    database = open_database(settings.database_url)
    try:
        if revision_of(database) == head():
            for job in active_jobs(database):
                if job.runner is None or not job.runner.is_here or job.runner.alive:
                    raise InputError(
                        f"{settings.data}: job {job.id} is {job.state}; stop the servers, and "
                        "pause or end the jobs that run"
                    )
    except Damaged:
        return
    finally:
        database.close()


def _close_off(target: Path) -> None:
    """Put the log into the database. Raises InputError while another process has it open.

    A server would go on in the file that is moved away, and what it is told would be lost.
    """
    try:
        with _opened(target, wait_s=0) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")  # SQLite allows it to the last one
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname != "SQLITE_BUSY":
            raise
        raise InputError(
            f"{target}: a server or a job still uses it; stop all of this folder and try again"
        ) from error


@contextlib.contextmanager
def _writing(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """A file beside `out` that takes its name when it is whole."""
    part = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield part
        if replace:
            os.replace(part, out)
        else:
            os.link(part, out)
    except FileExistsError as error:
        raise InputError(f"{out}: exists already; give another file") from error
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"{out}: cannot be written ({one_line(error)}); make room") from error
    finally:
        for name in ("", "-wal", "-shm", "-journal"):
            part.with_name(part.name + name).unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(file: Path, *, wait_s: float = 60.0) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(file, timeout=wait_s, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def _check(file: Path) -> None:
    """Raise StorageError for a file that is no whole database of the service."""
    try:
        with _opened(file) as connection:
            answer = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            tables = {row[0] for row in connection.execute("select name from sqlite_master")}
    except sqlite3.Error as error:
        answer, tables = one_line(error), set()
    if answer != "ok" or not {"alembic_version", "job", "event"} <= tables:
        reason = answer if answer != "ok" else "it has no jobs' tables"
        raise StorageError(f"{file}: not a whole backup of a service ({reason}); take another one")
