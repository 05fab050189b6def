"""An answer that closes its connection comes before the connection is reset."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from starlette.types import Message, Receive, Scope, Send

from evomerge.service.http.unread import UnreadBodies

SCOPE: Scope = {"type": "http", "method": "POST", "path": "/"}


def talk(
    pieces: Iterable[bytes], *, close: bool, read: int = 0, linger_s: float = 60.0
) -> list[str]:
    """What happens in order: `read` for each piece of the body, and the parts of the answer."""
    happened: list[str] = []
    left = iter(pieces)

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(read):
            await receive()
        headers = [(b"connection", b"close")] if close else []
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": b"too large"})

    async def receive() -> Message:
        piece = next(left, None)
        if piece is None:  # it sends no more, and does not leave
            await asyncio.Event().wait()
        happened.append("read")
        return {"type": "http.request", "body": piece, "more_body": piece != b"end"}

    async def send(message: Message) -> None:
        kind = message["type"].removeprefix("http.response.")
        happened.append(kind + (", more" if message.get("more_body") else ""))

    asyncio.run(UnreadBodies(app, linger_s=linger_s)(SCOPE, receive, send))
    return happened


def test_a_body_is_read_to_its_end_between_the_answer_and_its_end() -> None:
    happened = talk([b"a", b"b", b"end"], close=True, read=1)
    assert happened == ["read", "start", "body, more", "read", "read", "body"]


def test_nothing_is_waited_for_that_has_come() -> None:
    assert talk([b"a", b"end"], close=True, read=2) == ["read", "read", "start", "body"]


def test_a_connection_that_stays_open_needs_no_such_care() -> None:
    assert talk([b"a", b"end"], close=False) == ["start", "body"]


def test_a_sender_that_falls_silent_is_not_waited_for() -> None:
    happened = talk([b"a"], close=True, linger_s=0.01)
    assert happened == ["start", "body, more", "read", "body"]
