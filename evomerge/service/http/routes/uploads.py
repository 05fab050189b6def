"""Tables of questions and answers: uploaded in a stream, listed, deleted."""

from __future__ import annotations

import base64
import binascii
import re
import shutil
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Field
from starlette.requests import ClientDisconnect

from evomerge.service.http.callers import Caller, Runner, Viewer
from evomerge.service.http.guards import UPLOADS, too_large_upload
from evomerge.service.http.here import Here, Service
from evomerge.service.http.made_tasks import origins
from evomerge.service.http.problems import Problem, responses
from evomerge.service.http.views import View, moment
from evomerge.service.store import upload_files, uploads
from evomerge.service.store.texts import check_name
from evomerge.service.store.upload_files import Incoming
from evomerge.service.store.uploads import NewUpload, Upload

router = APIRouter(prefix=UPLOADS, tags=["uploads"])

UploadId = Annotated[str, Path(max_length=64, description="Id of an upload.")]
ProjectName = Annotated[
    str | None,
    Query(max_length=100, description="Name or id; the token's only project, or `default`."),
]

_BLOCK_BYTES = 2**20
_SNIFFED_BYTES = 16
_LONGEST_S = 0.5 * upload_files.STALE_S
"""So that no other server takes a file that still comes for a leftover."""
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")
_NOT_TABLES = (
    (b"PK\x03\x04", "a spreadsheet or a zip archive", "save the sheet as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet", "save the sheet as CSV (UTF-8)"),
    (b"\x1f\x8b", "compressed", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed", "unpack it first"),
    (b"BZh", "compressed", "unpack it first"),
    (b"\xfd7zXZ", "compressed", "unpack it first"),
    (b"\x7fELF", "a program", "give CSV, JSON lines or Parquet"),
    (b"%PDF", "a PDF document", "give CSV, JSON lines or Parquet"),
)
"""First bytes of other files that people give, and what to do."""

_BODY = {
    "requestBody": {
        "required": True,
        "description": "The bytes of the file: CSV, JSON lines or Parquet, by its content.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class UploadView(View):
    """A table that a member of a project has uploaded."""

    id: str = Field(examples=["ux3k5q7n2a4b6c8d"])
    project: str = Field(description="The project's name.")
    owner: str = Field(description="The person who uploaded it.")
    name: str = Field(description="As its file was named; never a path.", examples=["sums.csv"])
    format: str = Field(description="csv, json or parquet, by its content.")
    size_bytes: int
    sha256: str
    columns: list[str]
    rows: int
    encoding: str | None
    delimiter: str | None
    header: bool
    made: datetime
    tasks: list[str] = Field(description="Tasks made of it; they hold their own copy of its items.")

    @classmethod
    def of(
        cls, upload: Upload, projects: Mapping[str, str], tasks: Mapping[str, Sequence[str]]
    ) -> UploadView:
        """An upload as the store keeps it; projects: id -> name; tasks: made of each upload."""
        facts = {**vars(upload), "columns": list(upload.columns), "made": moment(upload.made)}
        facts["project"] = projects.get(upload.project, upload.project)
        return cls(**facts, tasks=list(tasks.get(upload.id, ())))


class UploadPage(View):
    """Part of a list of uploads, the newest first."""

    items: list[UploadView]
    cursor: str | None = Field(description="Gives the next page; null at the end.")
    total: int
    largest_bytes: int = Field(description="The largest file that is taken.")
    used_bytes: int | None = Field(description="Of the project's uploads, where one is named.")
    limit_bytes: int = Field(description="Of all uploads of a project.")


class GoneUpload(View):
    """An upload that was deleted."""

    id: str
    name: str
    tasks: list[str] = Field(description="Tasks made of it: they stay, with their own items.")


@router.post(
    "",
    status_code=201,
    summary="Upload a table",
    responses=responses(400, 401, 403, 404, 408, 413, 415, 421, 422, 429, 503, 507),
    openapi_extra=_BODY,
)
async def upload(
    request: Request,
    caller: Runner,
    here: Here,
    name: Annotated[str, Query(description="The file's name, to be shown.")],
    project: ProjectName = None,
    encoding: Annotated[
        str | None,
        Query(pattern=r"^[A-Za-z0-9_.-]{1,40}$", description="Of a text file; UTF-8 if null."),
    ] = None,
    delimiter: Annotated[
        str | None,
        Query(pattern=r"^(tab|[^\x00-\x20\x7f])$", description="Of CSV; found if null."),
    ] = None,
    header: Annotated[bool, Query(description="The first row of CSV names its columns.")] = True,
    repr_digest: Annotated[
        str | None,
        Header(alias="Repr-Digest", description="`sha-256=:BASE64:`; another file is refused."),
    ] = None,
) -> UploadView:
    """Keep a table for the tasks of a project. The body is the file itself, in any pieces.

    It is read once, to say what it has; one that cannot be read is refused and not kept.
    """
    check_name(name, field="name", least=1, most=200)
    expected = _expected(repr_digest)
    _refuse_form(request)
    reading = {"encoding": encoding, "delimiter": delimiter, "header": header}
    owned = await run_in_threadpool(_check_room, here, caller, project, request)
    refusal = here.uploading.problem(caller.token_id)
    if refusal is not None:
        raise Problem(429, refusal, mend="wait for them", headers={"Retry-After": "10"})
    upload_id = uploads.next_id()
    with (
        here.uploading.taken(caller.token_id),
        upload_files.receive(here.settings.data, owned, upload_id) as incoming,
    ):
        await _take(request, incoming, here)
        if expected is not None and incoming.sha256 != expected:
            raise Problem(
                422,
                f"Repr-Digest: what came has the sha256 {incoming.sha256}",
                field="Repr-Digest",
                value=expected,
                mend="send the file again",
            )
        await run_in_threadpool(incoming.sync)
        found = await here.tables.describe(incoming.file, {**reading, "shown_as": name})
        new = NewUpload(
            id=upload_id,
            project=owned,
            owner=caller.name,
            name=name,
            format=found["format"],
            size_bytes=incoming.size_bytes,
            sha256=incoming.sha256,
            columns=tuple(found["columns"]),
            rows=found["rows"],
            encoding=encoding,
            delimiter=delimiter,
            header=header,
        )
        return await run_in_threadpool(_keep, here, caller, new)


@router.get("", summary="Uploads", responses=responses(401, 404, 421, 422, 429, 503))
def list_uploads(
    caller: Viewer,
    here: Here,
    project: Annotated[str | None, Query(max_length=100, description="Only of this one.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> UploadPage:
    """Uploads of the projects that the token may see, newest first."""
    owned = None if project is None else here.project_id(project, caller.scope)
    page = uploads.find(
        here.database, project=owned, scope=caller.scope, limit=limit, cursor=cursor
    )
    names = here.project_names()
    limits = here.settings.limits
    tasks = origins(here.settings, {each.project for each in page.items})
    return UploadPage(
        items=[UploadView.of(each, names, tasks) for each in page.items],
        cursor=page.cursor,
        total=page.total,
        largest_bytes=limits.upload_bytes,
        used_bytes=None if owned is None else uploads.used_bytes(here.database, owned),
        limit_bytes=limits.project_uploads_bytes,
    )


@router.get("/{upload_id}", summary="An upload", responses=responses(401, 404, 421, 422, 429, 503))
def read_upload(upload_id: UploadId, caller: Viewer, here: Here) -> UploadView:
    """Its columns, rows, size and sha256, who uploaded it and when, and the tasks made of it."""
    found = uploads.get(here.database, upload_id, scope=caller.scope)
    return UploadView.of(found, here.project_names(), origins(here.settings, {found.project}))


@router.delete(
    "/{upload_id}",
    summary="Delete an upload",
    responses=responses(401, 403, 404, 421, 422, 429, 503),
)
def delete_upload(upload_id: UploadId, caller: Runner, here: Here) -> GoneUpload:
    """Remove the file for good. Tasks made of it stay: they hold their own copy of its items."""
    gone = uploads.delete(
        here.database,
        upload_id,
        data=here.settings.data,
        who=caller.who,
        scope=caller.scope,
    )
    tasks = origins(here.settings, {gone.project}).get(gone.id, [])
    return GoneUpload(id=gone.id, name=gone.name, tasks=tasks)


def _expected(header: str | None) -> str | None:
    """The sha256 that the client says. Raises Problem."""
    if header is None:
        return None
    found = _DIGEST.fullmatch(header.strip())
    try:
        if found is not None:
            return base64.b64decode(found[1], validate=True).hex()
    except binascii.Error:
        pass
    raise Problem(
        422,
        "Repr-Digest: not a sha-256 in base64",
        field="Repr-Digest",
        value=header,
        mend="write sha-256=:BASE64:, or leave it out",
    )


def _refuse_form(request: Request) -> None:
    """Refuse a body that is no plain file. Other types are not believed, and not refused."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    packed = request.headers.get("content-encoding", "identity").strip().lower()
    if kind.startswith("multipart/"):
        raise Problem(
            415,
            "Content-Type: a form, and not the file",
            field="Content-Type",
            value=kind,
            mend="send the file itself as the body, as `curl --data-binary @FILE` does",
        )
    if packed != "identity":
        raise Problem(
            415,
            "Content-Encoding: the body is packed",
            field="Content-Encoding",
            value=packed,
            mend="send the file as it is",
        )


def _check_room(here: Service, caller: Caller, project: str | None, request: Request) -> str:
    """The id of the project, if it has room for the upload. Raises Problem, TooLarge, NoRoom."""
    settings = here.settings
    owned = here.project_id(project, caller.scope)
    uploads.sweep(here.database, owned, data=settings.data)
    said = request.headers.get("content-length", "")
    size_bytes = int(said) if said.isdecimal() else 1
    uploads.check_room(here.database, owned, size_bytes, settings.limits.project_uploads_bytes)
    # What jobs need is left to them.
    if shutil.disk_usage(settings.data).free - size_bytes < settings.least_disk_bytes:
        raise upload_files.no_room()
    return owned


async def _take(request: Request, incoming: Incoming, here: Service) -> None:
    """Write the body to the file while it comes. Raises Problem, NoRoom.

    A file that is no table is read to its end even so: else its sender would not get the answer.
    """
    most_bytes, quiet_s = here.settings.limits.upload_bytes, here.web.upload_quiet_s
    start, block, total = b"", bytearray(), 0
    try:
        began = time.monotonic()
        async for piece in _pieces(request, quiet_s):
            if time.monotonic() - began > _LONGEST_S:
                raise Problem(
                    408,
                    f"the file takes more than {_LONGEST_S:g} s to come",
                    mend="draw some rows, or send it over a faster connection",
                    headers={"Connection": "close"},
                )
            total += len(piece)
            if total > most_bytes:
                raise too_large_upload(most_bytes)
            start += piece[: _SNIFFED_BYTES - len(start)]
            block += piece
            if len(block) >= _BLOCK_BYTES:
                if _refusal(start) is None:
                    await run_in_threadpool(incoming.write, bytes(block))
                block.clear()
    except TimeoutError as error:
        raise Problem(
            408,
            f"no byte of the file came for {quiet_s:g} s",
            mend="send it again",
            headers={"Connection": "close"},
        ) from error
    except ClientDisconnect as error:  # nobody reads this answer
        raise Problem(400, "the upload was cut off", mend="send it again") from error
    refusal = _refusal(start)
    if refusal is not None:
        raise refusal
    await run_in_threadpool(incoming.write, bytes(block))


async def _pieces(request: Request, quiet_s: float) -> AsyncIterator[bytes]:
    """The body as it comes. Raises TimeoutError where nothing comes for so long."""
    stream = aiter(request.stream())
    while True:
        with anyio.fail_after(quiet_s):
            try:
                piece = await anext(stream)
            except StopAsyncIteration:
                return
        yield piece


def _refusal(start: bytes) -> Problem | None:
    """Why a file that begins so is no table."""
    if not start:
        return Problem(
            422, "the file is empty", field="body", mend="give a file with questions and answers"
        )
    for sign, what, mend in _NOT_TABLES:
        if start.startswith(sign):
            return Problem(415, f"the file is {what}", field="body", mend=mend)
    return None


def _keep(here: Service, caller: Caller, new: NewUpload) -> UploadView:
    kept = uploads.add(
        here.database,
        new,
        data=here.settings.data,
        most_bytes=here.settings.limits.project_uploads_bytes,
        who=caller.who,
    )
    return UploadView.of(kept, here.project_names(), {})
