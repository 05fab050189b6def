"""The files of uploads: written under a temporary name, whole or not there, never by a given name.

DATA_DIR/uploads/received/PROJECT/
├── ID           an upload
└── .ID.part     one that comes in, or goes

A name that a person gives is never part of a path. Folders are opened one in the other without
following links, so a link that lies there leads nowhere.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from evomerge.errors import StorageError
from evomerge.service.store.refusals import Conflict, NoRoom

_FOLDERS = os.O_RDONLY | os.O_DIRECTORY
_PART = re.compile(r"\.(u[a-z2-7]{15})\.part")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

STALE_S = 3600.0
"""Nothing is written to a temporary file for so long while its server lives."""


class Incoming:
    """A file that comes in. size_bytes: so far."""

    def __init__(self, file: BinaryIO) -> None:
        self.size_bytes = 0
        self.file = file
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Add bytes. Raises NoRoom."""
        with room_errors():
            self.file.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)

    @property
    def sha256(self) -> str:
        """Of what was written."""
        return self._digest.hexdigest()

    def sync(self) -> None:
        """Let the disk have it all. Raises NoRoom."""
        with room_errors():
            self.file.flush()
            os.fsync(self.file.fileno())


@contextlib.contextmanager
def room_errors() -> Iterator[None]:
    """Raise NoRoom where the disk is full, StorageError where it cannot be written otherwise."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise no_room() from error
        raise StorageError(
            f"the data folder cannot be written ({error.strerror}); ask the operator to check it"
        ) from error


def no_room() -> NoRoom:
    """The refusal of a full disk."""
    return NoRoom(
        "the server's disk has no room for it",
        mend="delete uploads that are not needed, or ask the operator to make room",
    )


@contextlib.contextmanager
def receive(data: Path, project: str, upload_id: str) -> Iterator[Incoming]:
    """A new temporary file; at the end it is gone, unless `keep` has given it its name."""
    with room_errors(), _folder(data, project, make=True) as folder:
        part = _part(upload_id)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(part, flags, 0o600, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                yield Incoming(file)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part, dir_fd=folder)


def keep(data: Path, project: str, upload_id: str) -> None:
    """Give a file that came in its name; its row is in the database already."""
    with _folder(data, project) as folder:
        os.rename(_part(upload_id), upload_id, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


@contextlib.contextmanager
def open_upload(data: Path, project: str, upload_id: str) -> Iterator[BinaryIO]:
    """The file of an upload. Raises Conflict if it is not there."""
    try:
        with _folder(data, project) as folder:
            descriptor = _opened(folder, upload_id)
    except OSError as error:
        raise Conflict(
            "its file is not there",
            field="upload",
            value=upload_id,
            mend="upload it again; after a restore, put the folder uploads back",
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _opened(folder: int, upload_id: str) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(upload_id, flags, dir_fd=folder)
    except FileNotFoundError:
        # A server was killed after the row was written, and before the file got its name.
        os.rename(_part(upload_id), upload_id, src_dir_fd=folder, dst_dir_fd=folder)
        descriptor = os.open(upload_id, flags, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a file")
    return descriptor


def put_aside(data: Path, project: str, upload_id: str) -> None:
    """Take the name of a file away; nothing happens if there is none.

    While its row is there `open_upload` gives the name back, and without a row `sweep` removes it.
    """
    with contextlib.suppress(FileNotFoundError), _folder(data, project) as folder:
        os.rename(upload_id, _part(upload_id), src_dir_fd=folder, dst_dir_fd=folder)


def remove(data: Path, project: str, upload_id: str) -> None:
    """Remove a file that was put aside."""
    with contextlib.suppress(FileNotFoundError), _folder(data, project) as folder:
        os.unlink(_part(upload_id), dir_fd=folder)


def stale(data: Path, project: str) -> tuple[str, ...]:
    """Ids of temporary files that nobody has written to for a long time."""
    found = []
    with contextlib.suppress(OSError), _folder(data, project) as folder:
        for name in os.listdir(folder):
            match = _PART.fullmatch(name)
            if match is None:
                continue
            with contextlib.suppress(FileNotFoundError):
                facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if facts.st_mtime < time.time() - STALE_S:
                    found.append(match[1])
    return tuple(found)


def _part(upload_id: str) -> str:
    return f".{upload_id}.part"


@contextlib.contextmanager
def _folder(data: Path, project: str, *, make: bool = False) -> Iterator[int]:
    """The open folder of a project's uploads. Raises OSError, also where a link is in its place."""
    with contextlib.ExitStack() as close:
        if make:
            (data / "uploads").mkdir(exist_ok=True, mode=0o700)
        inside = os.open(data / "uploads", _FOLDERS)
        close.callback(os.close, inside)
        for name in ("received", project):
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=inside)
            inside = os.open(name, _FOLDERS | os.O_NOFOLLOW, dir_fd=inside)
            close.callback(os.close, inside)
        yield inside
