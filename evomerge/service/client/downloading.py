"""Downloading an export: to a temporary name, going on after a break, each file checked."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import httpx2

from evomerge.errors import StorageError
from evomerge.service.client.connection import TRIES_S, Connection, ServerError


def download(connection: Connection, job_id: str, out: Path) -> None:
    """Make a folder with the files of an export; it is there whole, or not at all.

    Raises InputError, ServerError, StorageError.
    """
    if out.exists() or out.is_symlink():
        raise StorageError(f"{out}: exists already; name another folder")
    listed = connection.get(f"/jobs/{job_id}/files")
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent))
    except OSError as error:
        raise StorageError(f"{out}: cannot be made ({error.strerror}); check the path") from error
    try:
        for file in listed["files"]:
            _fetch(connection, job_id, file, part / _inside(file["path"]))
        part.chmod(0o755)
        os.rename(part, out)
    except OSError as error:
        raise StorageError(f"{out}: cannot be written ({error.strerror}); make room") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _inside(path: str) -> PurePosixPath:
    """A path that a server may write. Raises ServerError."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts or "\0" in path:
        raise ServerError(f"{path[:200]}: the server names a file outside of the folder")
    return parts


def _fetch(connection: Connection, job_id: str, file: dict[str, Any], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    path = f"/jobs/{job_id}/files/{quote(file['path'])}"
    waits = iter(TRIES_S)
    with target.open("wb") as out:
        while out.tell() < file["size_bytes"]:
            headers = {}
            if out.tell():
                headers = {"Range": f"bytes={out.tell()}-", "If-Range": f'"{file["sha256"]}"'}
            try:
                with connection.stream(path, headers=headers) as answer:
                    if headers and answer.status_code != 206:
                        out.seek(0)
                        out.truncate()
                    for chunk in answer.iter_bytes():
                        out.write(chunk)
                        waits = iter(TRIES_S)
            except httpx2.TransportError as error:
                wait_s = next(waits, None)
                if wait_s is None:
                    raise ServerError(f"{file['path']}: the download stopped ({error})") from error
                time.sleep(wait_s)
    with target.open("rb") as written:
        found = hashlib.file_digest(written, "sha256").hexdigest()
    if found != file["sha256"]:
        raise ServerError(f"{file['path']}: what came is not what the server has; try again")
