"""Writing so that a kill or a full disk loses nothing, and saying so when it cannot be done."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
import sqlalchemy
import sqlalchemy.exc

from evomerge.errors import JobError, StorageError, one_line

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


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Raises JobError when the URL of the job is none that can be opened here."""
    try:
        return optuna.storages.RDBStorage(url)
    except (sqlalchemy.exc.ArgumentError, ImportError) as error:
        raise JobError(
            f"storage: {url}: cannot be opened ({one_line(error)}); write `auto` or "
            "postgresql+psycopg://USER@HOST/DATABASE, with the extra `postgres` installed"
        ) from error


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
        cause = error.__cause__ or error
        reason = one_line(getattr(cause, "orig", None) or cause)
        raise StorageError(
            f"{run_dir}: the record cannot be written ({reason}); everything recorded before is "
            f"kept: make room, then `evomerge resume {run_dir}`"
        ) from error
