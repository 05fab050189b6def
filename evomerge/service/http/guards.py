"""What every request passes: the name of the server, its origin, the size, headers of the answer.

A browser lets any page send requests to any server. What a page must not do is refused here: to
call the server by a name that it does not have (DNS rebinding), or to change something from another
site.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evomerge.service.http.logs import request_id_of
from evomerge.service.http.problems import Problem, answer
from evomerge.service.http.web_settings import WebSettings
from evomerge.service.settings import ServiceSettings

UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
UPLOADS = "/api/v1/uploads"

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; worker-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""For the page and all answers; a route may set a stricter one."""

REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""For a report, whose scripts are in it: it runs without an origin, so it can reach nothing."""


def is_loopback(host: str) -> bool:
    """Whether an address or a name means this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class SecurityHeaders:
    """Adds the headers of security to every answer; this stands outside all that may answer."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        self._secure = is_secure(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add(MutableHeaders(scope=message))
            await send(message)

        await self._app(scope, receive, sending)

    def _add(self, headers: MutableHeaders) -> None:
        headers.setdefault("Content-Security-Policy", PAGE_POLICY)
        headers["X-Content-Type-Options"] = "nosniff"
        headers["X-Frame-Options"] = "DENY"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=()"
        headers.setdefault("Cache-Control", "no-store")
        if self._secure:
            headers["Strict-Transport-Security"] = "max-age=31536000"


class Crowd:
    """Answers 503 while too many connections are open; a check whether the server lives passes."""

    def __init__(self, app: ASGIApp, connections: Callable[[], int], most: int) -> None:
        """connections: how many are open now."""
        self._app = app
        self._connections = connections
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        crowded = scope["type"] == "http" and self._connections() > self._most
        if not crowded or scope["path"] == "/health":
            await self._app(scope, receive, send)
            return
        problem = Problem(
            503,
            f"more than {self._most:,} connections are open",
            mend="try again in some seconds; close connections that are not needed",
            headers={"Retry-After": "5", "Connection": "close"},
        )
        await answer(problem, request_id_of(scope))(scope, receive, send)


class Guard:
    """Refuses foreign names, foreign origins and large bodies."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings, web: WebSettings) -> None:
        self._app = app
        self._web = web
        self._upload_bytes = settings.limits.upload_bytes
        self._secure = is_secure(settings)
        self._public = not is_loopback(settings.host) or settings.behind_proxy
        self._names = _names(settings.host, web.hosts, public=self._public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        problem = self._problem(scope, Headers(scope=scope))
        if problem is not None:
            await answer(problem, request_id_of(scope))(scope, receive, send)
            return
        if _is_upload(scope):  # the route counts its bytes as they come
            await self._app(scope, receive, send)
            return
        body = _Body(receive, self._web.body_bytes)
        await self._app(scope, body.receive, send)

    def _problem(self, scope: Scope, headers: Headers) -> Problem | None:
        hosts = headers.getlist("host")
        host = hosts[0] if len(hosts) == 1 else ""
        if not self._is_ours(host):
            return Problem(
                421,
                f"Host: {host[:100] or 'missing'}: not a name of this server",
                field="Host",
                value=host,
                mend="call it by its own name, or let its operator add the name with --public-host",
            )
        if scope["method"] in UNSAFE:
            problem = self._foreign(headers, host)
            if problem is not None:
                return problem
        length = headers.get("content-length", "0")
        if length.isdecimal() and len(length) < 20:
            if _is_upload(scope) and int(length) > self._upload_bytes:
                return too_large_upload(self._upload_bytes)
            if not _is_upload(scope) and int(length) > self._web.body_bytes:
                return too_large(self._web.body_bytes)
        elif length.isdecimal():
            return too_large(self._web.body_bytes)
        return None

    def _foreign(self, headers: Headers, host: str) -> Problem | None:
        """A problem if a page of another site sends the request."""
        origin = headers.get("origin")
        if origin is not None:
            scheme = "https" if self._secure else "http"
            # Compared as text: some values are no address that could be taken apart.
            if origin.lower() not in {f"{each}://{host}".lower() for each in (scheme, "https")}:
                return Problem(
                    403,
                    f"Origin: {origin[:100]}: another site may not change anything here",
                    field="Origin",
                    value=origin,
                    mend="use the page of this server, or a program with a token",
                )
        elif headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return Problem(
                403,
                "Sec-Fetch-Site: another site may not change anything here",
                field="Sec-Fetch-Site",
                mend="use the page of this server, or a program with a token",
            )
        return None

    def _is_ours(self, host: str) -> bool:
        name, port = _split(host)
        if name is None:
            return False
        if name in self._names or f"{name}:{port}" in self._names:
            return True
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        # A number is no name that someone else's DNS can point here.
        return address.is_loopback or self._public


def is_secure(settings: ServiceSettings) -> bool:
    """Whether browsers reach the server over TLS."""
    return settings.behind_proxy or settings.tls_certificate is not None


def _names(host: str, given: Iterable[str], *, public: bool) -> frozenset[str]:
    """Names of the server in lower case, with or without a port."""
    names = {"localhost", *(name.lower() for name in given)}
    try:
        ipaddress.ip_address(host)
    except ValueError:
        names.add(host.lower())
    if public:
        names.add(socket.gethostname().lower())
    return frozenset(names)


def _split(host: str) -> tuple[str | None, str]:
    """Name and port of a Host header; None for what is no host."""
    if not host or any(sign in host for sign in "/@?#\\ \t") or not host.isprintable():
        return None, ""
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port
    except ValueError:
        return None, ""
    if not parts.hostname:
        return None, ""
    return parts.hostname.lower().removesuffix("."), "" if port is None else str(port)


class _Body:
    """A request's body, counted as it comes."""

    def __init__(self, receive: Receive, limit_bytes: int) -> None:
        self._receive = receive
        self._limit_bytes = self._left = limit_bytes

    async def receive(self) -> Message:
        """The next part. Raises HTTPException, which FastAPI lets pass where it reads a body."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                document = too_large(self._limit_bytes).document
                raise HTTPException(
                    document.status, document.detail, headers={"Connection": "close"}
                )
        return message


def too_large(limit_bytes: int) -> Problem:
    """The problem of a body above the limit."""
    return Problem(
        413,
        f"the body is larger than {limit_bytes:,} bytes",
        mend="send less; models and data are named by their folder",
        headers={"Connection": "close"},
    )


def too_large_upload(limit_bytes: int) -> Problem:
    """The problem of an uploaded table above the limit."""
    return Problem(
        413,
        f"the file is larger than {limit_bytes:,} bytes",
        mend="draw some rows; a few thousand are enough for any score",
        headers={"Connection": "close"},
    )


def _is_upload(scope: Scope) -> bool:
    """Whether the body is a file, which is written to the disk while it comes."""
    return bool(scope["method"] == "POST" and scope["path"] == UPLOADS)
