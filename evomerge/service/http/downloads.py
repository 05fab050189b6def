"""Files of a folder over HTTP: found without leaving it, in ranges, with their sha256, as a tar.

A path is opened folder by folder without following links, so nothing outside can be reached.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import stat
import tarfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from evomerge.errors import StorageError
from evomerge.service.http.problems import Problem

CHUNK_BYTES = 256 * 1024
_BLOCK = 512  # bytes of a tar

_LEVELS = 16


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    """A file of a folder: its path inside, with slashes."""

    path: str
    size_bytes: int


def open_inside(folder: Path, path: str) -> BinaryIO:
    """Open a regular file of a folder. Raises Problem (404) for any other path."""
    parts = path.split("/")
    if len(parts) > _LEVELS or any(_is_bad(part) for part in parts):
        raise _missing(path)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with contextlib.ExitStack() as close:
        try:
            at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            close.callback(os.close, at)
            for part in parts[:-1]:
                at = os.open(part, flags | os.O_DIRECTORY, dir_fd=at)
                close.callback(os.close, at)
            file = os.open(parts[-1], flags, dir_fd=at)
        except (OSError, ValueError) as error:
            raise _missing(path) from error
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise _missing(path)
        return os.fdopen(file, "rb")


def _is_bad(part: str) -> bool:
    return (
        part.startswith(".")
        or "\\" in part
        or not part.isprintable()  # a control character, or bytes that are no UTF-8
        or not part
    )


def _missing(path: str) -> Problem:
    return Problem(
        404,
        f"{path[:200]}: no such file",
        field="path",
        value=path,
        mend="GET …/files lists the files",
    )


def files_of(folder: Path) -> list[FoundFile]:
    """The regular files of a folder, by path; without hidden ones, links and names of no text."""
    found = []
    for here, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not _is_bad(name))
        for name in names:
            whole = Path(here) / name
            try:
                facts = whole.lstat()
            except FileNotFoundError:  # deleted meanwhile
                continue
            if stat.S_ISREG(facts.st_mode) and not _is_bad(name):
                path = whole.relative_to(folder).as_posix()
                found.append(FoundFile(path=path, size_bytes=facts.st_size))
    return sorted(found, key=lambda file: file.path)


Recorded = Mapping[tuple[str, int, float], str]
"""Path, size and time of the last change -> the sha256 that the runner of a job recorded."""


def recorded(result: Mapping[str, Any] | None) -> Recorded:
    """What the result of a job says of its files; nothing where it was made by an earlier version.

    A large model is hashed once, by its runner: a request does not wait for it.
    """
    files = (result or {}).get("files", ())
    return {
        (file["path"], file["size_bytes"], file["modified"]): file["sha256"]
        for file in files
        if "modified" in file
    }


class Digests:
    """sha256 of files, computed once for each content."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int, int], str] = {}
        self._lock = threading.Lock()

    def of(self, file: BinaryIO, path: str, known: Recorded) -> str:
        """The sha256 of an open file, which is at its begin afterwards; path: inside its folder."""
        facts = os.fstat(file.fileno())
        stated = known.get((path, facts.st_size, facts.st_mtime))
        if stated is not None:
            return stated
        key = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        found = self._known.get(key)
        if found is None:
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            file.seek(0)
            with self._lock:
                if len(self._known) > 100_000:
                    self._known.clear()
                self._known[key] = found
        return found


# Ranges (RFC 9110, section 14).


@dataclass(frozen=True, kw_only=True)
class Span:
    """Bytes from `first` to `last`, both included."""

    first: int
    last: int

    @property
    def size_bytes(self) -> int:
        """How many bytes."""
        return self.last - self.first + 1


def span_of(header: str | None, size_bytes: int) -> Span | None:
    """The one range that a header asks for; None: send all. Raises Problem (416).

    A header that is no range of bytes, or asks for several, is ignored, as a server may.
    """
    if header is None:
        return None
    match = re.fullmatch(r"bytes=[ \t]*(\d{0,19})-(\d{0,19})[ \t]*", header, re.IGNORECASE)
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        first = int(match[1])
        last = min(int(match[2]), size_bytes - 1) if match[2] else size_bytes - 1
        if match[2] and int(match[2]) < first:
            return None  # no valid range at all
    else:
        first, last = max(0, size_bytes - int(match[2])), size_bytes - 1
        if int(match[2]) == 0:
            raise _no_such_range(header, size_bytes)
    if first >= size_bytes:
        raise _no_such_range(header, size_bytes)
    return Span(first=first, last=last)


def _no_such_range(header: str, size_bytes: int) -> Problem:
    return Problem(
        416,
        f"Range: {header[:100]}: the file has {size_bytes:,} bytes",
        field="Range",
        value=header,
        mend="ask for bytes that it has, or for all of it",
        headers={"Content-Range": f"bytes */{size_bytes}", "Accept-Ranges": "bytes"},
    )


_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+|[.]{2,}")


def is_named(header: str | None, etag: str) -> bool:
    """Whether If-None-Match names the file."""
    if header is None:
        return False
    given = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in given or etag in given


def chunks(file: BinaryIO, span: Span) -> Generator[bytes]:
    """The bytes of a range; closes the file."""
    with file:
        file.seek(span.first)
        left = span.size_bytes
        while left > 0:
            chunk = file.read(min(CHUNK_BYTES, left))
            if not chunk:
                return
            left -= len(chunk)
            yield chunk


def while_allowed(
    parts: Generator[bytes], allowed: Callable[[], bool], every_s: float
) -> Iterator[bytes]:
    """The parts of a download, while who asked for it may have it; closes `parts`.

    allowed: asked as often as `every_s` says; it may ask the database. Raises OSError where it says
    no: the answer then ends before its length, which a client sees.
    """
    due = time.monotonic() + every_s
    with contextlib.closing(parts):
        for part in parts:
            if time.monotonic() >= due:
                with contextlib.suppress(StorageError):  # it is asked again
                    if not allowed():
                        raise OSError("the token cannot be used any more")
                due = time.monotonic() + every_s
            yield part


def digest_header(sha256: str) -> str:
    """The value of Repr-Digest (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def disposition(name: str) -> str:
    """A Content-Disposition that saves a file under its name, whatever characters it has."""
    plain = re.sub(r'[^\w .()+,=@-]|["\\%]', "_", name, flags=re.ASCII)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


# A folder as one tar, written while it is sent.


def tar_bytes(files: list[FoundFile], root: str) -> int:
    """The length of the tar that `tar` writes."""
    size = sum(
        len(_head(root, file, mtime=0)) + -(-file.size_bytes // _BLOCK) * _BLOCK for file in files
    )
    return -(-(size + 2 * _BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def tar(folder: Path, files: list[FoundFile], root: str) -> Generator[bytes]:
    """A tar of the files, under a folder named `root`.

    It is the same bytes for the same files. Raises OSError where a file became shorter or is gone:
    the answer then ends before its length, which a client sees.
    """
    sent = 0
    for file in files:
        try:
            opened = open_inside(folder, file.path)
        except Problem as problem:  # an answer that has begun cannot become another one
            raise OSError(f"{file.path}: is gone") from problem
        with opened:
            head = _head(root, file, mtime=0)
            sent += len(head)
            yield head
            left = file.size_bytes
            while left:
                chunk = opened.read(min(CHUNK_BYTES, left))
                if not chunk:
                    raise OSError(f"{file.path}: became shorter")
                left -= len(chunk)
                sent += len(chunk)
                yield chunk
            padding = -file.size_bytes % _BLOCK
            sent += padding
            yield bytes(padding)
    whole = -(-(sent + 2 * _BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
    yield bytes(whole - sent)


def _head(root: str, file: FoundFile, *, mtime: int) -> bytes:
    facts = tarfile.TarInfo(f"{root}/{file.path}")
    facts.size, facts.mtime, facts.mode = file.size_bytes, mtime, 0o644
    return facts.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def archive_root(name: str, job_id: str) -> str:
    """The folder that an archive unpacks into: the job's name where it is harmless, and its id.

    A name is a user's text, and programs that unpack archives follow `..` and `/`.
    """
    kept = _NO_NAME.sub("-", name).strip("-.")[:80]
    return f"{kept}-{job_id}" if kept else job_id
