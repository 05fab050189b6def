"""Sends tables of questions to a server in a stream, and has tasks made of them there."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from evomerge.errors import InputError
from evomerge.service.client.connection import Connection

_BLOCK_BYTES = 2**20
_TIMEOUT = httpx2.Timeout(600.0, connect=10.0)
"""The server reads the whole table before it answers."""


def send(connection: Connection, path: Path, query: Mapping[str, Any]) -> dict[str, Any]:
    """Upload a file; what the server says of it. Raises InputError, ServerError."""
    with _opened(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        # Before the bytes are sent: who breaks a sending off does not get the answer.
        largest = connection.get("/uploads", limit=1)["largest_bytes"]
        if size_bytes > largest:
            raise InputError(
                f"{path}: larger than {largest:,} bytes, the server's limit; draw some rows, a few "
                "thousand are enough for any score"
            )
        digest = hashlib.file_digest(file, "sha256").digest()
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(size_bytes),
            "Repr-Digest": f"sha-256=:{base64.b64encode(digest).decode()}:",
        }
        file.seek(0)
        answer = connection.request(
            "POST",
            "/uploads",
            params={"name": path.name, **query},
            content=_blocks(file),
            headers=headers,
            timeout=_TIMEOUT,
        )
    made: dict[str, Any] = answer.json()
    return made


def make(connection: Connection, form: Mapping[str, Any]) -> dict[str, Any]:
    """Have a task made; the report of it. Raises InputError, ServerError."""
    given = {name: value for name, value in form.items() if value is not None}
    made: dict[str, Any] = connection.post("/tasks/from-file", given, timeout=_TIMEOUT)
    return made


def pages(connection: Connection, path: str, **filters: Any) -> Iterator[dict[str, Any]]:
    """Every entry of a list that comes in pages."""
    cursor: str | None = None
    while True:
        page = connection.get(path, **filters, cursor=cursor)
        yield from page["items"]
        cursor = page["cursor"]
        if cursor is None:
            return


def remove(connection: Connection, *parts: str, project: str | None = None) -> httpx2.Response:
    """Delete what these parts of a path name."""
    path = "/".join(quote(part, safe="") for part in parts)
    return connection.request("DELETE", f"/{path}", params={"project": project})


def _opened(path: Path) -> BufferedReader:
    try:
        # Without O_NONBLOCK, opening a pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); check the path") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path}: not a regular file; give the file of the questions")
    return os.fdopen(descriptor, "rb")


def _blocks(file: BufferedReader) -> Iterator[bytes]:
    while block := file.read(_BLOCK_BYTES):
        yield block
