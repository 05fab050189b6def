"""Writing so that a kill or a full disk loses nothing, and saying so when it cannot be done."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
import sqlalchemy
import sqlalchemy.exc

from evomerge.errors import StorageError, one_line
from evomerge.study.postgres import open_postgres, reason_of

_LEFT_S = 3600.0
"""Seconds after which an unfinished file has no writer any more."""


def write_whole(path: Path, write: Any) -> None:
    """Write a file so that a kill leaves the old one or the new one, never a part.

    `write` is called with a temporary path in the same folder, which is then synced and renamed.
    Each call has its own, so that of several at once the last one stays.
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
    """Of writers that were killed: a file that one is writing is never that old."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*partial"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _LEFT_S:
                leftover.unlink()


def open_storage(url: str, *, run_dir: Path, writes: bool) -> optuna.storages.RDBStorage:
    """The studies of a record; a reader makes none where there is none.

    Raises JobError, StorageError, RunError for a database that cannot be opened.
    """
    if sqlalchemy.make_url(url).get_backend_name() == "postgresql":
        return open_postgres(url, run_dir=run_dir, writes=writes)
    return optuna.storages.RDBStorage(url)


_BEGUN = ("job.yaml", "run.mark", "study.db", "run.lock")
"""Files that the beginning of a search writes into its run directory."""


def remove_begun(run_dir: Path, made: Sequence[Path]) -> None:
    """Remove what the beginning of a search wrote, and the folders made for it that are empty.

    made: the run directory where it was made, and those above it that were, the innermost first.
    """
    for name in _BEGUN:
        (run_dir / name).unlink(missing_ok=True)
    for folder in (*run_dir.glob("facts/*"), run_dir / "facts", run_dir / "items", *made):
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def storage_errors(run_dir: Path) -> Iterator[None]:
    """Say in one line that the record cannot be written, and what to do."""
    try:
        yield
    except (
        OSError,
        optuna.exceptions.StorageInternalError,
        sqlalchemy.exc.DatabaseError,
        pa.ArrowException,
    ) as error:
        said = reason_of(error)
        if said is not None:
            raise StorageError(
                f"{run_dir}: the database cannot be written ({said}); everything recorded before "
                f"is kept: when it answers again, `evomerge resume {run_dir}`"
            ) from error
        cause = error.__cause__ or error
        reason = one_line(getattr(cause, "orig", None) or cause)
        raise StorageError(
            f"{run_dir}: the record cannot be written ({reason}); everything recorded before is "
            f"kept: make room, then `evomerge resume {run_dir}`"
        ) from error
