"""Uploaded tables: their rows, the limit of a project, and files that no row names any more."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from evomerge.service.database.engine import Database, lock, now
from evomerge.service.database.tables import UploadRow
from evomerge.service.store import upload_files
from evomerge.service.store.audit import Who, note
from evomerge.service.store.job import new_id
from evomerge.service.store.pages import Page, Scope, newest_first
from evomerge.service.store.refusals import NotFound, TooLarge

Format = Literal["csv", "json", "parquet"]

_MEND = "delete uploads that are not needed; a few thousand rows are enough for any score"


@dataclass(frozen=True, kw_only=True)
class NewUpload:
    """A table that has come in whole. name: shown, and never a path.

    encoding, delimiter, header: how it is read; None is found.
    """

    id: str
    project: str
    owner: str
    name: str
    format: Format
    size_bytes: int
    sha256: str
    columns: tuple[str, ...]
    rows: int
    encoding: str | None
    delimiter: str | None
    header: bool


@dataclass(frozen=True, kw_only=True)
class Upload(NewUpload):
    """A table as it is kept; made: seconds since the epoch."""

    made: float


def next_id() -> str:
    """The id of a new upload."""
    return new_id("u")


def used_bytes(db: Database, project: str) -> int:
    """Bytes of all uploads of a project."""
    with db.read() as session:
        return _used(session, project)


def check_room(db: Database, project: str, size_bytes: int, most_bytes: int) -> None:
    """Raise TooLarge if the project may not keep so many bytes more."""
    _check(used_bytes(db, project), size_bytes, most_bytes)


def add(db: Database, upload: NewUpload, *, data: Path, most_bytes: int, who: Who) -> Upload:
    """Keep an upload, whose file was received. Raises TooLarge.

    Two at once wait for each other, so that they cannot pass the project's limit together.
    """
    with db.write() as session:
        lock(session, f"uploads {upload.project}")
        _check(_used(session, upload.project), upload.size_bytes, most_bytes)
        row = UploadRow(**{**vars(upload), "columns": list(upload.columns)}, made=now(session))
        session.add(row)
        detail = {"name": upload.name, "size_bytes": upload.size_bytes, "sha256": upload.sha256}
        note(session, who, "upload.make", row.id, project=row.project, detail=detail)
        session.flush()
        made = _upload(row)
    # After the row: a file without one would be of nobody, and a row without its file is mended.
    upload_files.keep(data, upload.project, upload.id)
    return made


def get(db: Database, upload_id: str, *, scope: Scope = None) -> Upload:
    """An upload. Raises NotFound, also for one of another project."""
    with db.read() as session:
        return _upload(_row(session, upload_id, scope))


def find(
    db: Database,
    *,
    project: str | None = None,
    scope: Scope = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Page[Upload]:
    """Uploads, newest first. Raises Refusal for a cursor that this did not give."""
    query = select(UploadRow)
    if scope is not None:
        query = query.where(UploadRow.project.in_(sorted(scope)))
    if project is not None:
        query = query.where(UploadRow.project == project)
    return newest_first(db, query, UploadRow, _upload, limit=limit, cursor=cursor)


def delete(db: Database, upload_id: str, *, data: Path, who: Who, scope: Scope = None) -> Upload:
    """Remove an upload and its file. Raises NotFound."""
    with db.write() as session:
        row = _row(session, upload_id, scope, locked=True)
        lock(session, f"uploads {row.project}")
        gone = _upload(row)
        note(session, who, "upload.delete", row.id, project=row.project, detail={"name": row.name})
        session.delete(row)
        session.flush()
        upload_files.put_aside(data, gone.project, gone.id)
    upload_files.remove(data, gone.project, gone.id)
    return gone


def sweep(db: Database, project: str, *, data: Path) -> None:
    """Remove what a killed server left of uploads; one that has a row gets its name back."""
    found = upload_files.stale(data, project)
    if not found:
        return
    with db.write() as session:
        lock(session, f"uploads {project}")
        for upload_id in found:
            with contextlib.suppress(FileNotFoundError):
                if session.get(UploadRow, upload_id) is None:
                    upload_files.remove(data, project, upload_id)
                else:
                    upload_files.keep(data, project, upload_id)


def _used(session: Session, project: str) -> int:
    total = select(func.sum(UploadRow.size_bytes)).where(UploadRow.project == project)
    return int(session.scalar(total) or 0)


def _check(used: int, size_bytes: int, most_bytes: int) -> None:
    if used + size_bytes > most_bytes:
        raise TooLarge(
            f"its project has {used:,} bytes of uploads, and {most_bytes:,} is its limit: no room "
            f"for {size_bytes:,} more",
            mend=_MEND,
        )


def _row(session: Session, upload_id: str, scope: Scope, *, locked: bool = False) -> UploadRow:
    short = upload_id.isalnum() and upload_id.isascii() and len(upload_id) < 50
    row = session.get(UploadRow, upload_id, with_for_update=locked) if short else None
    if row is None or (scope is not None and row.project not in scope):
        raise NotFound("no such upload", field="upload", value=upload_id, mend="check its id")
    return row


def _upload(row: UploadRow) -> Upload:
    return Upload(
        id=row.id,
        project=row.project,
        owner=row.owner,
        name=row.name,
        format=cast(Format, row.format),
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        columns=tuple(row.columns),
        rows=row.rows,
        encoding=row.encoding,
        delimiter=row.delimiter,
        header=row.header,
        made=row.made,
    )
