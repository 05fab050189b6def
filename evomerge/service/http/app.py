"""The application: routes, guards and the page, put together for one server process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.utils import get_openapi
from fastapi.staticfiles import StaticFiles
from starlette.responses import FileResponse
from starlette.types import ASGIApp, Scope

from evomerge.service.database.engine import Database
from evomerge.service.http import logs, problems
from evomerge.service.http.callers import Authentication
from evomerge.service.http.downloads import Digests
from evomerge.service.http.examples import describe_examples
from evomerge.service.http.guards import Crowd, Guard, SecurityHeaders
from evomerge.service.http.here import Service
from evomerge.service.http.models import describe_documents
from evomerge.service.http.problems import ProblemDocument
from evomerge.service.http.rates import Places
from evomerge.service.http.reader import Reader
from evomerge.service.http.records import Records
from evomerge.service.http.routes import (
    events,
    files,
    found,
    health,
    jobs,
    moves,
    people,
    questions,
    records,
    series,
    session,
    uploads,
    webhooks,
)
from evomerge.service.http.streams import Feeds
from evomerge.service.http.table_process import Tables
from evomerge.service.http.unread import UnreadBodies
from evomerge.service.http.web_settings import WebSettings
from evomerge.service.runner.supervisor import Supervisor
from evomerge.service.settings import ServiceSettings
from evomerge.service.webhooks.sender import Sender
from evomerge.version import __version__

_PAGE = Path(__file__).resolve().parent.parent / "page" / "static"

_ABOUT = """Submit searches for the best merge of fine-tuned language models, watch them, stop,
resume and export them.

Every route of `/api/v1` needs a token: `Authorization: Bearer TOKEN`. A browser exchanges it for a
session (`POST /api/v1/session`). Roles: a viewer reads, a runner also submits and moves jobs, an
admin also makes tokens and reads the audit log. What belongs to a project that the token may not
see is answered as if it did not exist.

Every refusal is `application/problem+json` with `detail` in one line, and where they are known
`field`, `value` and `mend`."""

_TAGS = [
    {"name": "jobs", "description": "Submit and move jobs."},
    {"name": "watch", "description": "Live events and logs."},
    {"name": "record", "description": "What a search has found so far."},
    {"name": "files", "description": "Downloads of exports."},
    {"name": "uploads", "description": "Tables of questions, and the tasks made of them."},
    {"name": "found", "description": "What a job may name."},
    {"name": "webhooks", "description": "Who is told of jobs, and what has arrived."},
    {"name": "people", "description": "Projects, tokens, the audit log."},
    {"name": "session", "description": "Browser sessions."},
    {"name": "operation", "description": "For machines that watch the server."},
]


def make_app(
    settings: ServiceSettings,
    database: Database,
    *,
    web: WebSettings | None = None,
    supervisor: Supervisor | None = None,
    sender: Sender | None = None,
    reader: Reader | None = None,
    connections: Callable[[], int] = lambda: 0,
) -> ASGIApp:
    """The application of one server process.

    supervisor, sender: started and stopped with the application; None where this process runs no
    jobs, or sends nothing to webhooks. reader: reads records, and is left open; the application
    starts its own when it needs one. connections: how many the server has open.
    """
    web = web or WebSettings()
    service = Service(
        settings=settings,
        web=web,
        database=database,
        feeds=Feeds(database, web.poll_s),
        places=Places(web.streams, web.streams_per_token),
        records=Records(settings, reader),
        digests=Digests(),
        tables=Tables(),
        uploading=Places(web.uploads, web.uploads_per_token, noun="uploads that come in"),
        supervisor=supervisor,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.records.start()
        if supervisor is not None:
            await run_in_threadpool(supervisor.start)
        if sender is not None:
            await run_in_threadpool(sender.start)
        try:
            yield
        finally:
            if sender is not None:
                await run_in_threadpool(sender.stop)
            if supervisor is not None:
                await run_in_threadpool(supervisor.stop)
            await run_in_threadpool(service.records.close)

    api = FastAPI(
        title="evomerge",
        version=__version__,
        description=_ABOUT,
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    api.state.service = service
    problems.install(api)
    for routes in (
        jobs,
        moves,
        events,
        records,
        series,
        files,
        found,
        questions,
        uploads,
        people,
        webhooks,
        session,
        health,
    ):
        api.include_router(routes.router)
    _describe(api)
    _serve_page(api)
    guarded = Authentication(api, database, settings, web)
    let_in = Crowd(UnreadBodies(Guard(guarded, settings, web)), connections, web.connections)
    named = logs.RequestLog(let_in, failed=_failed)
    return SecurityHeaders(named, settings)


def _failed(scope: Scope) -> ASGIApp:
    return problems.answer(problems.failed(), logs.request_id_of(scope))


def _describe(api: FastAPI) -> None:
    """The OpenAPI document, made once, with a short name for each route."""
    document: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not document:
            made = get_openapi(
                title=api.title,
                version=api.version,
                description=api.description,
                tags=_TAGS,
                routes=api.routes,
            )
            schemas = made["components"]["schemas"]
            schemas["ProblemDocument"] = ProblemDocument.model_json_schema()
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            describe_documents(made)
            describe_examples(made)
            document.update(made)
        return document

    api.openapi = openapi  # type: ignore[method-assign]

    @api.get("/openapi.json", include_in_schema=False)
    def read_openapi() -> dict[str, Any]:
        return api.openapi()


def _serve_page(api: FastAPI) -> None:
    @api.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(_PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    api.mount("/static", _Static(directory=_PAGE, check_dir=False), name="static")


class _Static(StaticFiles):
    """The page's files; a browser asks each time whether they have changed."""

    def file_response(self, *args: Any, **kwargs: Any) -> Any:
        """The answer with a file."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response
