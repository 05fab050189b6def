"""Every refusal as application/problem+json (RFC 9457): what, the field, its value, the mend."""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import Any, get_args

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

from evomerge.errors import EvomergeError, InputError, StorageError, hide_secrets, one_line
from evomerge.problem_words import problem_text, written_parts
from evomerge.service.database.engine import NoAccess
from evomerge.service.http import logs
from evomerge.service.store.job import Kind
from evomerge.service.store.refusals import (
    Conflict,
    NoRoom,
    NotFound,
    OverLimit,
    Refusal,
    TooLarge,
)

MEDIA_TYPE = "application/problem+json"

_LONGEST_VALUE = 200
_SECRET_FIELDS = frozenset({"token", "secret", "password", "authorization", "url"})
"""Fields whose values are never repeated; the URL of a webhook may hold a secret in its path."""


class ProblemDocument(BaseModel):
    """Why a request was refused."""

    type: str = Field(
        description="A name for the kind of problem.", examples=["urn:evomerge:input"]
    )
    title: str = Field(description="The kind of problem in words.", examples=["Bad input"])
    status: int = Field(description="The status of the answer.", examples=[422])
    detail: str = Field(
        description="The problem in one line, as the command line says it.",
        examples=["budget.candidates: 0: below 1; give 1 or more"],
    )
    field: str | None = Field(
        default=None,
        description="The field of the request, as a dotted path.",
        examples=["job.budget.candidates"],
    )
    value: str | None = Field(
        default=None, description="The value that was refused, as text.", examples=["0"]
    )
    mend: str | None = Field(default=None, description="What to do.", examples=["give 1 or more"])
    request_id: str | None = Field(
        default=None, description="Names the request in the server's log.", examples=["7c1f0a52"]
    )


class Problem(Exception):
    """A refusal that a route or a guard raises."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        field: str | None = None,
        value: object = None,
        mend: str | None = None,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.headers = dict(headers or {})
        self.document = ProblemDocument(
            type=f"urn:evomerge:{kind or _KINDS.get(status, 'problem')}",
            title=_TITLES.get(status) or http.HTTPStatus(status).phrase,
            status=status,
            detail=_line(detail),
            field=_short(_line(field)) if field else None,
            value=_shown(field, value),
            mend=_line(mend or _MENDS.get(status, _MEND)),
        )


_KINDS = {
    400: "unreadable",
    401: "no-token",
    403: "not-allowed",
    404: "not-found",
    405: "method",
    408: "slow",
    409: "conflict",
    413: "too-large",
    415: "media-type",
    416: "range",
    421: "host",
    422: "input",
    429: "limit",
    500: "server",
    503: "not-ready",
    507: "no-room",
}

_TITLES = {
    401: "No token that can be used",
    403: "Not allowed",
    404: "No such thing, or it is not yours to see",
    409: "Not in a state for this",
    413: "Content Too Large",  # as the standard has it now; older Pythons say something else
    416: "Range Not Satisfiable",
    421: "Not a name of this server",
    422: "Bad input",
    429: "A limit is reached",
    500: "The server failed",
    503: "The server cannot do this now",
    507: "The server's disk is full",
}


_MENDS = {
    404: "check its id, and the project of the token",
    409: "read the job first; it may be in another state by now",
    422: "change it, or leave it out; /openapi.json describes every field",
    500: "tell the operator of the server the request_id",
    503: "try again in some seconds",
}
_MEND = "look the route up in /openapi.json"
"""Where nothing better is known: no problem is without a mend."""


def answer(problem: Problem, request_id: str | None = None) -> JSONResponse:
    """The answer that tells of a problem."""
    document = problem.document.model_copy(update={"request_id": request_id})
    return JSONResponse(
        document.model_dump(exclude_none=True),
        status_code=document.status,
        media_type=MEDIA_TYPE,
        headers=problem.headers,
    )


def problem_of(error: EvomergeError) -> Problem:
    """An error of evomerge as a problem; its line is the same as on the command line."""
    line = str(error)
    field, value, mend = _parts_of(error)
    if isinstance(error, NotFound):
        return Problem(404, line, field=field, value=value, mend=mend)
    if isinstance(error, Conflict):
        return Problem(409, line, field=field, value=value, mend=mend)
    if isinstance(error, OverLimit):
        return Problem(
            429, line, field=field, value=value, mend=mend, headers={"Retry-After": "30"}
        )
    if isinstance(error, TooLarge):
        return Problem(413, line, field=field, value=value, mend=mend)
    if isinstance(error, NoRoom):
        return Problem(507, line, field=field, value=value, mend=mend)
    if isinstance(error, InputError):
        return Problem(422, line, field=field, value=value, mend=mend)
    if isinstance(error, NoAccess):  # its line names the database, which is the operator's
        return Problem(
            503,
            "the server's database gives no access; its log has the reason",
            mend="try again in some seconds; if it goes on, tell its operator the request_id",
            headers={"Retry-After": "5"},
        )
    if isinstance(error, StorageError):
        return Problem(503, line, mend=mend, headers={"Retry-After": "5"})
    return Problem(500, line, mend=mend)


def _parts_of(error: EvomergeError) -> tuple[str | None, object, str | None]:
    """Field, value and mend of an error."""
    if isinstance(error, Refusal):
        return error.field or None, error.value, error.mend or None
    line = str(error)
    mend = line.rpartition("; ")[2] if "; " in line else None
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        problems = sorted(cause.errors(), key=lambda one: one["type"] != "extra_forbidden")
        parts = written_parts(problems[0])
        return ".".join(map(str, parts)) or None, problems[0].get("input"), mend
    head, separator, rest = line.partition(": ")
    if separator and head and " " not in head:
        value = rest.partition(": ")[0] if ": " in rest else None
        return head, value, mend
    return None, None, mend


def _line(text: str) -> str:
    return one_line(hide_secrets(text))


def _shown(field: str | None, value: object) -> str | None:
    """A value as text, short; None for secrets and for values of several parts."""
    if value is None or not isinstance(value, str | int | float):
        return None
    if field is not None and field.rpartition(".")[2].lower() in _SECRET_FIELDS:
        return None
    return _short(_line(str(value)))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


_JOB_KINDS = frozenset(get_args(Kind))

_PLACES = {
    "query": "query",
    "path": "path",
    "header": "header",
    "cookie": "cookie",
}


def _of_validation(error: RequestValidationError) -> Problem:
    """The first problem of a request, unknown keys first, because they explain missing ones."""
    problems = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    first = problems[0]
    place, *rest = first["loc"]
    if first["type"] == "json_invalid":
        return Problem(
            400,
            f"the body is not JSON: {first['ctx']['error']} at character {first['loc'][-1]}",
            mend="send one JSON document with content-type: application/json",
        )
    if place == "body" and len(rest) > 1 and rest[0] in _JOB_KINDS:
        rest = rest[1:]  # pydantic's name of the request, which the client did not write
    parts = written_parts({**first, "loc": tuple(rest)})
    field = ".".join(str(part) for part in parts)
    what = problem_text(first)
    if first["type"] == "union_tag_not_found":
        return Problem(
            422,
            "kind: missing; add it: search, check, grid, evaluation or calibration",
            field="kind",
            mend="add it: search, check, grid, evaluation or calibration",
        )
    if first["type"] == "union_tag_invalid":
        tag, known = _shown("kind", first["ctx"]["tag"]), first["ctx"]["expected_tags"]
        return Problem(
            422,
            f"kind: {tag}: no such kind of job; write one of {known}",
            field="kind",
            value=tag,
            mend=f"write one of {known}",
        )
    if not field and place == "body":
        return Problem(
            422,
            f"the body: {what}",
            mend="send one JSON object with content-type: application/json",
        )
    what, _, mend = what.partition("; ")
    value = first.get("input")
    shown = _shown(field, value) if first["type"] != "missing" else None
    where = f"{_PLACES[place]} {field}" if place in _PLACES else field
    line = ": ".join(part for part in (where, shown, what) if part)
    return Problem(
        422,
        f"{line}; {mend}" if mend else line,
        field=field,
        value=shown,
        mend=mend or what,
    )


def install(app: FastAPI) -> None:
    """Let every error of the app's routes become a problem."""

    @app.exception_handler(Problem)
    def _problem(request: Request, error: Problem) -> JSONResponse:
        return answer(error, logs.request_id_of(request.scope))

    @app.exception_handler(Exception)
    def _failure(request: Request, error: Exception) -> JSONResponse:
        return answer(failed(), logs.request_id_of(request.scope))

    @app.exception_handler(EvomergeError)
    def _ours(request: Request, error: EvomergeError) -> JSONResponse:
        if not isinstance(error, InputError):
            logs.log_error("refused", error, request.scope)
        return answer(problem_of(error), logs.request_id_of(request.scope))

    @app.exception_handler(RequestValidationError)
    def _validation(request: Request, error: RequestValidationError) -> JSONResponse:
        return answer(_of_validation(error), logs.request_id_of(request.scope))

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        problem = Problem(
            error.status_code,
            _of_http(request, error),
            mend=_HTTP_MENDS.get(error.status_code),
            headers=dict(error.headers or {}),
        )
        return answer(problem, logs.request_id_of(request.scope))


def failed() -> Problem:
    """The problem of a server that failed."""
    return Problem(
        500,
        "the server failed; its log has the reason",
        mend="tell its operator the request_id",
    )


def _of_http(request: Request, error: HTTPException) -> str:
    if error.status_code == 404:
        return f"{request.url.path}: no such page; the routes are listed in /openapi.json"
    if error.status_code == 405:
        return f"{request.method}: not a method of {request.url.path}"
    if error.status_code == 400:  # FastAPI's answer to a body that breaks the JSON reader itself
        return "the body cannot be read as JSON: too deep, a number too long, or not UTF-8"
    return str(error.detail)


_HTTP_MENDS = {
    400: "send one JSON document in UTF-8 with content-type: application/json",
    404: "look the route up in /openapi.json",
    405: "look the methods up in /openapi.json",
    413: "send less; models and data are named by their folder",
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer with, for its OpenAPI document."""
    return {
        status: {
            "description": _TITLES.get(status) or http.HTTPStatus(status).phrase,
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/ProblemDocument"},
                    # What they are is said once; see `examples.py`.
                    "examples": {"refused": {"$ref": f"#/components/examples/Problem{status}"}},
                }
            },
        }
        for status in sorted(statuses)
    }
