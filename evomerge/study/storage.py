"""Safe writing of the record: a kill or a full disk loses nothing, and errors are one line."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import shlex
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
import pyarrow as pa
import sqlalchemy
import sqlalchemy.exc

from evomerge.errors import RunError, StorageError, one_line
from evomerge.study.postgres import open_postgres, read_postgres, reason_of
from evomerge.study.trial_rows import TrialStorage

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LEFT_S = 3600.0
"""Seconds after which an unfinished file surely has no writer."""

_LONGEST = 200
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)

DAMAGE = (
    OSError,
    pa.ArrowException,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""Errors that reading a damaged Parquet file can raise, because it may contain anything."""

Trouble = Literal["full", "closed", "busy", "damaged", "other"]
"""Why a record cannot be read or written: no space, no permission, in use, damaged, or other."""


def write_whole(path: Path, write: Any) -> None:
    """Write a file so that a kill leaves the old one or the new one, never a part.

    `write` is called with a temporary path in the same folder; the file is then synced and renamed.
    Each call has its own temporary path, so with several writers the last file stays.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    _remove_leftovers(path)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _remove_leftovers(path: Path) -> None:
    """Remove files of killed writers; a file that is being written is never that old."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*partial"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _LEFT_S:
                leftover.unlink()


def open_storage(url: str, *, run_dir: Path) -> optuna.storages.RDBStorage:
    """The studies of a record, for writing; missing tables are made.

    Raises JobError, StorageError for a database that cannot be opened.
    """
    if _is_postgres(url):
        return open_postgres(url, run_dir=run_dir)
    return TrialStorage(url)


def open_engine(url: str, *, run_dir: Path) -> sqlalchemy.Engine:
    """The database of a record, for reading; nothing is made. Raises RunError if it is empty."""
    return (
        read_postgres(url, run_dir=run_dir) if _is_postgres(url) else sqlalchemy.create_engine(url)
    )


def _is_postgres(url: str) -> bool:
    return sqlalchemy.make_url(url).get_backend_name() == "postgresql"


_BEGUN = ("job.yaml", "run.mark", "study.db", "study.db-journal", "run.lock", "events.jsonl")
"""Files that the start of a search writes into its run directory."""


def remove_begun(run_dir: Path, made: Sequence[Path]) -> None:
    """Remove the files that the start of a search wrote, and its empty folders.

    made: folders that the start made: the run directory and those above it, the innermost first.
    """
    for name in _BEGUN:
        (run_dir / name).unlink(missing_ok=True)
    own = (run_dir / name for name in ("facts", "items", "answers"))
    remove_empty((*run_dir.glob("facts/*"), *own, *made))


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove the folders that are empty."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def storage_errors(run_dir: Path) -> Iterator[None]:
    """Report in one line that the record cannot be written, and what to do."""
    again = f"evomerge resume {shlex.quote(str(run_dir))}"
    try:
        yield
    except _ERRORS as error:
        answer = reason_of(error)
        if answer is not None:
            raise StorageError(
                f"{run_dir}: the database cannot be written ({answer}); everything recorded before "
                f"is kept: when it answers again, `{again}`"
            ) from error
        trouble, reason = _trouble_of(error)
        if trouble == "damaged":
            raise damaged(run_dir, reason) from error
        mends = {
            "full": "make room",
            "closed": "let this user write there",
            "busy": "close what else has it open",
        }
        raise StorageError(
            f"{run_dir}: the record cannot be written ({reason}); everything recorded before is "
            f"kept: {mends.get(trouble, 'mend that')}, then `{again}`"
        ) from error


@contextlib.contextmanager
def beginning_errors(run_dir: Path) -> Iterator[None]:
    """Report in one line that a record cannot be started."""
    try:
        yield
    except _ERRORS as error:
        trouble, reason = _trouble_of(error)
        mends = {"full": "make room", "closed": "let this user write there"}
        mend = mends.get(trouble, "mend that")
        raise StorageError(
            f"{run_dir}: nothing was started: the record cannot be written ({reason}); {mend}, "
            "or give another --run-dir, and run the command again"
        ) from error


@contextlib.contextmanager
def reading_errors(run_dir: Path) -> Iterator[None]:
    """Report in one line that the record cannot be read, and what to do."""
    try:
        yield
    except _ERRORS as error:
        trouble, reason = _trouble_of(error)
        if trouble == "damaged":
            raise damaged(run_dir, reason) from error
        raise RunError(
            f"{run_dir}: the record cannot be read ({reason}); mend that and try again"
        ) from error


def damaged(run_dir: Path, what: str) -> RunError:
    """The error for a record that differs from what was written."""
    return RunError(
        f"{run_dir}: the record (study.db, or the database that the job names) is damaged: {what}; "
        "put back a copy of it, or save what can be read with "
        f"`evomerge repair {shlex.quote(str(run_dir))}`; the results of every candidate on every "
        "item are in items/"
    )


_ERRORS = (
    OSError,
    optuna.exceptions.StorageInternalError,
    sqlalchemy.exc.SQLAlchemyError,
    pa.ArrowException,
    sqlite3.Error,
    UnicodeDecodeError,
)


def _trouble_of(error: BaseException) -> tuple[Trouble, str]:
    """The kind of trouble, and its reason in one line."""
    cause = error.__cause__ or error
    origin = getattr(cause, "orig", None) or cause
    reason = one_line(origin)[:_LONGEST]  # the error may quote a whole damaged text
    if isinstance(origin, OSError):
        kinds: dict[Trouble, tuple[int, ...]] = {"full": _FULL, "closed": _CLOSED}
        return next((k for k, known in kinds.items() if origin.errno in known), "other"), reason
    if not isinstance(origin, sqlite3.Error | UnicodeDecodeError):
        return "other", reason
    name = getattr(origin, "sqlite_errorname", "")
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return "full", reason
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return "closed", reason
    return ("busy" if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) else "damaged"), reason
