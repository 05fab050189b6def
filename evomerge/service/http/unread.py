"""What a sender still sends after an answer that ends its connection.

A connection that is closed while bytes of a body lie unread is reset, and a reset can overtake the
answer: the sender, or the proxy before it, sees a broken connection and not why it was refused.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_S = 5.0
"""Seconds to read on; whoever has its answer stops sending well before."""


class UnreadBodies:
    """Reads on for a while before the end of an answer that closes its connection."""

    def __init__(self, app: ASGIApp, *, linger_s: float = LINGER_S) -> None:
        self._app = app
        self._linger_s = linger_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        whole = closing = False

        async def receiving() -> Message:
            nonlocal whole
            message = await receive()
            whole = whole or message["type"] != "http.request" or not message.get("more_body")
            return message

        async def sending(message: Message) -> None:
            nonlocal closing
            if message["type"] == "http.response.start":
                closing = Headers(raw=message["headers"]).get("connection", "").lower() == "close"
            elif closing and not whole and not message.get("more_body"):
                await send({**message, "more_body": True})
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._linger_s):
                        while not whole:
                            await receiving()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self._app(scope, receiving, sending)
