"""One try of a delivery: a signed request over a connection to an address that was checked."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import socket
import ssl
import types
from collections.abc import Iterable
from datetime import UTC, datetime

import anyio
import anyio.to_thread
import httpcore2

from evomerge.errors import hide_secrets, one_line
from evomerge.service.store.refusals import Refusal
from evomerge.service.webhooks.deliveries import Answer, Claimed
from evomerge.service.webhooks.destinations import Destinations, Target
from evomerge.service.webhooks.signature import signed_headers
from evomerge.version import __version__

TIMEOUT_S = 10.0
"""From the look-up of the name to the status of the answer."""

_MOST_ADDRESSES = 3
"""Addresses of a name that are tried."""

_READ_BYTES = 2**14
"""Of an answer's body, so that its sender sees no broken connection; nothing of it is kept."""

_LONGEST_ERROR = 300


class _Barred(Exception):
    """The name leads to an address that is not allowed."""


class Post:
    """Sends deliveries; `async with` it, in one event loop."""

    def __init__(
        self,
        destinations: Destinations,
        *,
        public_url: str | None = None,
        timeout_s: float = TIMEOUT_S,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """context: which certificates are trusted; the system's if not given."""
        self._destinations = destinations
        self._public_url = public_url
        self._timeout_s = timeout_s
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=context or ssl.create_default_context(),
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=_CheckedNetwork(destinations),
        )

    async def __aenter__(self) -> Post:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        await self._pool.aclose()

    async def send(self, claimed: Claimed) -> Answer:
        """Try once. Whatever a receiver does, this ends in time and with a line that tells why."""
        try:
            target = self._destinations.read_url(claimed.url)
        except Refusal as refused:  # what the operator allows has changed
            return Answer(error=f"not sent: {refused.what}")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._send(claimed, target)
        except TimeoutError:
            return Answer(error=f"no answer within {self._timeout_s:g} s")
        except _Barred:
            return Answer(error="not sent: its name leads to an address that is not allowed")
        except Exception as error:
            return Answer(error=_said(error))

    async def _send(self, claimed: Claimed, target: Target) -> Answer:
        body = body_of(claimed, self._public_url)
        headers = {
            "host": target.authority,
            "content-type": "application/json",
            "content-length": str(len(body.encode())),
            "user-agent": f"evomerge/{__version__}",
            "connection": "close",
            **signed_headers(claimed.id, claimed.at, body, claimed.secrets),
        }
        url = httpcore2.URL(
            scheme=target.scheme.encode(),
            host=target.host.encode(),
            port=target.port,
            target=target.path.encode(),
        )
        sent = [(name.encode(), value.encode()) for name, value in headers.items()]
        async with self._pool.stream("POST", url, headers=sent, content=body.encode()) as answer:
            # The status decides, so what comes after it may be slow, long or broken.
            with contextlib.suppress(httpcore2.NetworkError, httpcore2.ProtocolError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await _read_a_little(answer)
            return _answer(answer)


def body_of(claimed: Claimed, public_url: str | None) -> str:
    """What is sent, the same at each try."""
    data = dict(claimed.data)
    if claimed.job is not None:
        data["url"] = None if public_url is None else f"{public_url}/#/job/{claimed.job}"
    at = datetime.fromtimestamp(claimed.made, UTC).isoformat(timespec="milliseconds")
    document = {"type": claimed.kind, "timestamp": at.replace("+00:00", "Z"), "data": data}
    return json.dumps(document, separators=(",", ":"))


class _CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Looks a name up, and connects to the very addresses that it has checked."""

    def __init__(self, destinations: Destinations) -> None:
        self._destinations = destinations
        self._network = httpcore2.AnyIOBackend()
        self._lookups: anyio.CapacityLimiter | None = None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to an address of the host. Raises _Barred, ConnectError."""
        addresses = await self._look_up(host, port)
        if not all(self._destinations.allows(host, address) for address in addresses):
            raise _Barred
        problem: Exception = httpcore2.ConnectError("its name has no address")
        for address in addresses[:_MOST_ADDRESSES]:
            try:
                return await self._network.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except httpcore2.ConnectError as error:
                problem = error
        raise problem

    async def _look_up(self, host: str, port: int) -> list[str]:
        """The addresses of a name, each once, in the order of the system."""
        if self._lookups is None:
            # Threads of their own: a look-up may hang, and nothing else may wait for it.
            self._lookups = anyio.CapacityLimiter(100)
        try:
            found = await anyio.to_thread.run_sync(
                lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM),
                abandon_on_cancel=True,
                limiter=self._lookups,
            )
        except (OSError, UnicodeError):
            raise httpcore2.ConnectError("its name has no address") from None
        return list(dict.fromkeys(str(each[4][0]) for each in found))


async def _read_a_little(answer: httpcore2.Response) -> None:
    left = _READ_BYTES
    async for part in answer.aiter_stream():
        left -= len(part)
        if left <= 0:
            return


def _answer(answer: httpcore2.Response) -> Answer:
    status = answer.status
    error = None
    if 300 <= status < 400:
        error = f"answered {status}; redirects are not followed, so give the last address"
    elif not 200 <= status < 300:
        error = f"answered {status}"
    given = {name.lower(): value for name, value in answer.headers}.get(b"retry-after")
    return Answer(status=status, error=error, asked_s=None if given is None else _seconds(given))


def _seconds(given: bytes) -> float | None:
    """The wait of a Retry-After, in seconds or as a date; None for what is neither."""
    text = given.decode("latin-1").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _said(error: Exception) -> str:
    """Why there was no answer, in one short line."""
    if isinstance(error, httpcore2.RemoteProtocolError):  # its text has parts of the answer
        return "cannot be reached (it hung up, or what it answers is no HTTP)"
    reason = one_line(hide_secrets(str(error))) or type(error).__name__
    return f"cannot be reached ({reason})"[:_LONGEST_ERROR]
