"""The log of the server: one JSON line for every event, on stderr, without secrets."""

from __future__ import annotations

import logging
import re
import secrets
import sys
import time
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evomerge.errors import hide_secrets
from evomerge.service.http import metrics

_ID = re.compile(rb"[A-Za-z0-9._-]{4,64}")
_QUIET = ("/health", "/ready", "/metrics")
"""Asked every few seconds by machines; logged only when they fail."""


def _stamp(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The time first, as RFC 3339 in UTC."""
    now = time.time()
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    return {"at": at, **event}


def _hide(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """No password and no token in any text."""
    return {key: hide_secrets(v) if isinstance(v, str) else v for key, v in event.items()}


class _Stderr:
    """Writes lines to the stderr of the moment."""

    def msg(self, line: str) -> None:
        """Write a line."""
        print(line, file=sys.stderr, flush=True)

    info = warning = error = msg


_log: Any = structlog.wrap_logger(
    _Stderr(),
    processors=[
        _stamp,
        structlog.processors.add_log_level,
        _hide,
        structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
    ],
    wrapper_class=structlog.BoundLogger,
)


def log(event: str, **facts: Any) -> None:
    """Log an event."""
    _log.info(event, **facts)


def log_error(event: str, error: BaseException, scope: Scope | None = None) -> None:
    """Log a failure of the server with its trace."""
    trace = "".join(traceback.format_exception(error))
    facts = {} if scope is None else {"request_id": request_id_of(scope), "path": scope["path"]}
    _log.error(event, error=f"{type(error).__name__}: {error}", trace=trace, **facts)


class LibraryLog(logging.Handler):
    """What libraries log, as lines of the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record of the standard library's logging."""
        facts: dict[str, Any] = {"logger": record.name, "text": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            facts["trace"] = "".join(traceback.format_exception(record.exc_info[1]))
        write = _log.error if record.levelno >= logging.ERROR else _log.warning
        (write if record.levelno >= logging.WARNING else _log.info)("log", **facts)


def take_library_logs() -> None:
    """Let warnings of all libraries, and uvicorn's own lines, go through this log."""
    root = logging.getLogger()
    root.handlers = [LibraryLog(level=logging.WARNING)]
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.WARNING)


def request_id_of(scope: Scope) -> str | None:
    """The id of a request."""
    found: str | None = scope.get("state", {}).get("request_id")
    return found


def route_of(scope: Scope) -> str:
    """The pattern of the route that answered, so that no id is in a metric."""
    path: str = getattr(scope.get("route"), "path", "") or "none"
    return path


class RequestLog:
    """Names every request, measures it and logs it; answers 500 for what nothing else caught."""

    def __init__(self, app: ASGIApp, *, failed: Callable[[Scope], ASGIApp]) -> None:
        self._app = app
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given.decode() if _ID.fullmatch(given) else secrets.token_hex(8)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        began = time.perf_counter()
        status, ended = 0, False

        async def sending(message: Message) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
                metrics.observe_request(
                    scope["method"], route_of(scope), status, time.perf_counter() - began
                )
            elif message["type"] == "http.response.body":
                ended = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            log_error("request_failed", error, scope)
            if status and not ended:
                raise  # the client sees that the answer is not whole
            if not status:
                await self._failed(scope)(scope, receive, sending)
        finally:
            path = scope["path"]
            if path not in _QUIET or status >= 400:
                caller = state.get("caller")
                log(
                    "request",
                    request_id=request_id,
                    method=scope["method"],
                    path=path,
                    status=status,
                    ms=round(1000 * (time.perf_counter() - began), 1),
                    who=getattr(caller, "name", None),
                    token=getattr(caller, "token_id", None),
                    address=(scope.get("client") or (None,))[0],
                )
