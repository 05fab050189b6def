"""Files of an export and of a calibration: a list, downloads in ranges, everything as one tar."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse

from evomerge.api import export_commands
from evomerge.service.http import downloads
from evomerge.service.http.callers import API, Caller, Viewer
from evomerge.service.http.downloads import Span
from evomerge.service.http.here import Here, Service
from evomerge.service.http.problems import Problem, responses
from evomerge.service.http.record_models import CommandView, FilesView, FileView
from evomerge.service.http.routes.jobs import JobId, found
from evomerge.service.store.jobs import Job

router = APIRouter(prefix=f"{API}/jobs/{{job_id}}", tags=["files"])

_WITH_FILES = ("export", "calibration")
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


@router.get(
    "/files",
    summary="Files of an export",
    responses=responses(401, 404, 409, 421, 422, 429, 503),
)
def list_files(job_id: JobId, caller: Viewer, here: Here) -> FilesView:
    """Path, size and sha256 of every file, and commands that load an exported model."""
    job = found(here, caller, job_id)
    folder = _folder(here, job)
    known = downloads.recorded(job.result)
    files = []
    for file in downloads.files_of(folder):
        with downloads.open_inside(folder, file.path) as opened:
            sha256 = here.digests.of(opened, file.path, known)
        files.append(FileView(path=file.path, size_bytes=file.size_bytes, sha256=sha256))
    root = downloads.archive_root(job.name, job.id)
    commands = export_commands(folder, root) if job.kind == "export" else ()
    return FilesView(
        files=files,
        size_bytes=sum(file.size_bytes for file in files),
        folder=root,
        commands=[CommandView(tool=each.tool, text=each.text) for each in commands],
    )


@router.head("/files/{path:path}", include_in_schema=False)
@router.get(
    "/files/{path:path}",
    summary="Download a file",
    response_class=Response,
    responses={
        200: {"description": "The file", "content": _BINARY},
        206: {"description": "The range that was asked for", "content": _BINARY},
        304: {"description": "The file is the one that If-None-Match names"},
        **responses(401, 404, 409, 416, 421, 422, 429, 503),
    },
)
def download(
    job_id: JobId,
    path: str,
    request: Request,
    caller: Viewer,
    here: Here,
    range_: Annotated[str | None, Header(alias="Range", max_length=200)] = None,
    if_range: Annotated[str | None, Header(alias="If-Range", max_length=200)] = None,
    if_none_match: Annotated[str | None, Header(alias="If-None-Match", max_length=2000)] = None,
) -> Response:
    """A file, or one range of it. Its ETag is its sha256."""
    job = found(here, caller, job_id)
    file = downloads.open_inside(_folder(here, job), path)
    try:
        sha256 = here.digests.of(file, path, downloads.recorded(job.result))
        size_bytes = file.seek(0, 2)
        etag = f'"{sha256}"'
        headers = {
            "ETag": etag,
            "Accept-Ranges": "bytes",
            "Cache-Control": "private, no-cache",
            "Content-Disposition": downloads.disposition(Path(path).name),
        }
        if downloads.is_named(if_none_match, etag):
            file.close()
            return Response(status_code=304, headers=headers)
        # Digest of the whole file; RFC 9530 calls it that of the representation.
        headers["Repr-Digest"] = downloads.digest_header(sha256)
        current = if_range is None or if_range.strip() == etag
        asked = range_ if current and request.method == "GET" else None
        span = downloads.span_of(asked, size_bytes)
    except BaseException:
        file.close()
        raise
    whole = Span(first=0, last=size_bytes - 1)
    sent = span or whole
    headers["Content-Length"] = str(sent.size_bytes)
    if span is not None:
        headers["Content-Range"] = f"bytes {span.first}-{span.last}/{size_bytes}"
    if request.method == "HEAD":
        file.close()
        return Response(status_code=200, headers=headers, media_type="application/octet-stream")
    return StreamingResponse(
        _allowed(downloads.chunks(file, sent), caller, here),
        status_code=200 if span is None else 206,
        headers=headers,
        media_type="application/octet-stream",
    )


@router.get(
    "/archive",
    summary="All files as one tar",
    response_class=Response,
    responses={
        200: {
            "description": "The folder",
            "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}},
        },
        **responses(401, 404, 409, 421, 422, 429, 503),
    },
)
def archive(job_id: JobId, caller: Viewer, here: Here) -> Response:
    """The whole folder, written while it is sent; the same bytes each time."""
    job = found(here, caller, job_id)
    folder = _folder(here, job)
    files = downloads.files_of(folder)
    root = downloads.archive_root(job.name, job.id)
    return StreamingResponse(
        _allowed(downloads.tar(folder, files, root), caller, here),
        headers={
            "Content-Length": str(downloads.tar_bytes(files, root)),
            "Content-Disposition": downloads.disposition(f"{root}.tar"),
        },
        media_type="application/x-tar",
    )


def _allowed(parts: Generator[bytes], caller: Caller, here: Service) -> Iterator[bytes]:
    """A download, which ends where the token is revoked meanwhile, as a stream of events does."""
    return downloads.while_allowed(parts, caller.is_usable, here.web.heartbeat_s)


def _folder(here: Service, job: Job) -> Path:
    """The finished folder of a job. Raises Problem."""
    if job.kind not in _WITH_FILES:
        raise Problem(
            409,
            f"{job.id}: a job of kind {job.kind} has no files",
            field="id",
            value=job.id,
            mend="POST …/exports makes a job whose files can be downloaded",
        )
    folder = here.settings.export_dir(job.id)
    if job.state != "succeeded" or not folder.is_dir():
        raise Problem(
            409,
            f"{job.id}: its files are not written; it is {job.state}",
            field="id",
            value=job.id,
            mend="watch its events until it has succeeded",
        )
    return folder
