"""The log of the server: one JSON line for every event, on stderr, without secrets."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evomerge.errors import StorageError, hide_secrets
from evomerge.service.http import metrics

_ID = re.compile(rb"[A-Za-z0-9._-]{4,64}")
_LONGEST_PATH = 500
"""Characters of a path that are logged; who has no token may send far longer ones."""
_QUIET = ("/health", "/ready", "/metrics")
"""Asked every few seconds by machines; logged only when they fail."""


def log(event: str, *, level: str = "info", **facts: Any) -> None:
    """Log an event: its time in UTC, its name, and what is known of it."""
    now = time.time()
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    shown = {k: hide_secrets(v) if isinstance(v, str) else v for k, v in facts.items()}
    line = {"at": at, "level": level, "event": event, **shown}
    # One write for a line, so that lines of several threads do not mix.
    with contextlib.suppress(OSError, ValueError):  # who reads the log is gone
        sys.stderr.write(json.dumps(line, ensure_ascii=True, default=str) + "\n")
        sys.stderr.flush()


def log_error(event: str, error: BaseException, scope: Scope | None = None, **facts: Any) -> None:
    """Log a failure of the server with its trace, but for that of a database that is away."""
    if scope is not None:
        facts |= {"request_id": request_id_of(scope), "path": scope["path"][:_LONGEST_PATH]}
    if not isinstance(error, StorageError):
        facts["trace"] = "".join(traceback.format_exception(error))
    log(event, level="error", error=f"{type(error).__name__}: {error}", **facts)


class LibraryLog(logging.Handler):
    """What libraries log, as lines of the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record of the standard library's logging."""
        try:
            text = record.getMessage()
        except Exception:  # a library's mistake, which must not end what it does
            text = f"{record.msg} {record.args}"
        facts: dict[str, Any] = {"logger": record.name, "text": text}
        if record.exc_info and record.exc_info[1] is not None:
            facts["trace"] = "".join(traceback.format_exception(record.exc_info[1]))
        log("library", level=record.levelname.lower(), **facts)


def take_library_logs() -> None:
    """Let warnings of all libraries, and uvicorn's own lines, go through this log."""
    root = logging.getLogger()
    root.handlers = [LibraryLog(level=logging.WARNING)]
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.WARNING)


@contextlib.contextmanager
def taking_strays() -> Iterator[None]:
    """Log what Python itself writes to stderr: its warnings, and errors that nothing catches."""
    before = threading.excepthook, sys.unraisablehook
    threading.excepthook, sys.unraisablehook = _thread_failed, _not_raised
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        threading.excepthook, sys.unraisablehook = before


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is None or isinstance(failed.exc_value, SystemExit):
        return
    name = None if failed.thread is None else failed.thread.name
    log_error("thread_failed", failed.exc_value, thread=name)


def _not_raised(failed: sys.UnraisableHookArgs) -> None:
    """Of an error where none can be raised, such as at the end of an object."""
    if failed.exc_value is not None:
        log_error("not_raised", failed.exc_value, where=failed.err_msg)


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
                    path=path[:_LONGEST_PATH],
                    status=status,
                    ms=round(1000 * (time.perf_counter() - began), 1),
                    who=getattr(caller, "name", None),
                    token=getattr(caller, "token_id", None),
                    address=(scope.get("client") or (None,))[0],
                )
