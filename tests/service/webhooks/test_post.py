"""One try: signed, to an address that was checked, and ended in time whatever a receiver does."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpcore2
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from evomerge.service.webhooks.deliveries import Answer, Claimed
from evomerge.service.webhooks.destinations import Destinations
from evomerge.service.webhooks.post import Post
from evomerge.service.webhooks.signature import new_secret, signed_headers
from tests.ports import free_port
from tests.service.http.house import ROOT
from tests.service.webhooks.receiver import LOCAL, OK, Receiver, answer, is_signed

SECRET = new_secret()
NO_HTTP = Answer(error="cannot be reached (it hung up, or what it answers is no HTTP)")


def claimed(url: str, **changes: Any) -> Claimed:
    usual = {
        "id": "msg_1",
        "webhook": "w1",
        "job": "j1",
        "kind": "job.succeeded",
        "made": 1.7e9,
        "at": 1.7e9 + 60.25,
        "attempt": 1,
        "url": url,
        "secrets": (SECRET,),
        "data": {"id": "j1", "name": "ü"},
    }
    return Claimed(**{**usual, **changes})


async def sent(
    receiver: Receiver,
    destinations: Destinations = LOCAL,
    *,
    url: str | None = None,
    tries: int = 1,
    **options: Any,
) -> list[Answer]:
    async with receiver.listening(), Post(destinations, **options) as post:
        where = (url or receiver.url).replace("PORT", str(receiver.port))
        return [await post.send(claimed(where)) for _ in range(tries)]


def look_up(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Let names lead to these addresses, one after the other; the names that were looked up."""
    asked: list[str] = []
    left = list(answers)

    def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        address = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


# The signature.


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of https://github.com/standard-webhooks/standard-webhooks."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330.9, '{"test": 2432232314}', [secret]
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_what_arrives_is_signed_with_each_secret() -> None:
    receiver, other = Receiver(), new_secret()

    async def send() -> None:
        async with receiver.listening(), Post(LOCAL, public_url="https://merge.example") as post:
            both = claimed(receiver.url, secrets=(SECRET, other))
            assert await post.send(both) == Answer(status=200)

    asyncio.run(send())
    [got] = receiver.received
    assert is_signed(got, SECRET)
    assert is_signed(got, other)
    assert not is_signed(got, new_secret())
    assert got.document == {
        "type": "job.succeeded",
        "timestamp": "2023-11-14T22:13:20.000Z",
        "data": {"id": "j1", "name": "ü", "url": "https://merge.example/#/job/j1"},
    }
    assert got.path == "/hook?a=1"
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-timestamp"] == str(int(1.7e9 + 60))
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(SECRET).verify(got.body, got.headers)


def test_the_page_says_how_to_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(import base64\n.*?)^```$", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(code, "service.md", "exec"), names)
    is_genuine = names["is_genuine"]
    body = '{"type":"job.failed","data":{"name":"ü"}}'
    headers = signed_headers("msg_1", 1.7e9, body, [new_secret(), SECRET])
    monkeypatch.setattr("time.time", lambda: 1.7e9 + 299)
    assert is_genuine(SECRET, headers, body.encode())
    assert not is_genuine(new_secret(), headers, body.encode())
    assert not is_genuine(SECRET, headers, body.encode() + b" ")
    assert not is_genuine(SECRET, {**headers, "webhook-id": "msg_2"}, body.encode())
    monkeypatch.setattr("time.time", lambda: 1.7e9 + 301)
    assert not is_genuine(SECRET, headers, body.encode())


# What a receiver answers.


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (answer(204), Answer(status=204)),
        (answer(500), Answer(status=500, error="answered 500")),
        (
            answer(429, "retry-after: 120"),
            Answer(status=429, error="answered 429", asked_s=120.0),
        ),
        (
            answer(503, "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"),
            Answer(status=503, error="answered 503", asked_s=0.0),
        ),
        (answer(503, "Retry-After: soon"), Answer(status=503, error="answered 503")),
        (answer(410), Answer(status=410, error="answered 410")),
        # An endless body, one that breaks off: the status has come.
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 99_999,
            Answer(status=200),
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Answer(status=200)),
        # Nothing that it says is kept.
        (
            b"HTTP/1.1 500 hunter2\r\nContent-Length: 7\r\n\r\nhunter2",
            Answer(status=500, error="answered 500"),
        ),
        (b"hunter2\r\n\r\n", NO_HTTP),
        (b"HTTP/1.1 200 OK\r\nhunter2\r\n\r\n", NO_HTTP),
        (b"HTTP/1.1 9999 hunter2\r\n\r\n", NO_HTTP),
    ],
)
def test_the_status_decides(given: bytes, expected: Answer) -> None:
    assert asyncio.run(sent(Receiver([given]))) == [expected]


def test_little_of_a_long_answer_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[int] = []
    read = httpcore2.Response.aiter_stream

    async def counted(answer: httpcore2.Response) -> AsyncIterator[bytes]:
        async for part in read(answer):
            came.append(len(part))
            yield part

    monkeypatch.setattr(httpcore2.Response, "aiter_stream", counted)
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + b"x" * 999_999
    assert asyncio.run(sent(Receiver([long]))) == [Answer(status=200)]
    assert sum(came[:-1]) < 2**14


def test_a_redirect_is_not_followed() -> None:
    inside = Receiver()
    outside = Receiver()

    async def send() -> Answer:
        async with inside.listening(), outside.listening(), Post(LOCAL) as post:
            outside.answers = [answer(307, f"Location: {inside.url}")]
            return await post.send(claimed(outside.url))

    refused = asyncio.run(send())
    assert (refused.status, inside.received) == (307, [])
    assert "redirects are not followed" in str(refused.error)


def drip() -> bytes:
    return b"X-Drip: 1\r\n"


@pytest.mark.parametrize(
    "given", [None, drip, lambda: b"HTTP/1.1 200 OK\r\nX-A: ", lambda: b"garbage"]
)
def test_no_try_lasts_longer_than_it_may(given: bytes | Callable[[], bytes] | None) -> None:
    [ended] = asyncio.run(sent(Receiver([given]), timeout_s=0.2))
    assert ended.status is None
    assert ended.error


def test_what_cannot_be_reached_is_one_short_line(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()

    async def send(url: str) -> Answer:
        async with Post(LOCAL) as post:
            return await post.send(claimed(url))

    refused = asyncio.run(send(f"http://127.0.0.1:{port}/secret-path"))
    assert refused.status is None
    assert "cannot be reached" in str(refused.error)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(OSError()))
    nameless = asyncio.run(send("http://nowhere.example/secret-path"))
    assert nameless == Answer(error="cannot be reached (its name has no address)")
    for each in (refused, nameless):
        assert "secret-path" not in str(each.error)
        assert "\n" not in str(each.error)


# Addresses inside.


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::ffff:127.0.0.1]", "2130706433", "0x7f000001", "0177.0.0.1", "localhost"],
)
def test_a_kept_url_that_leads_inside_is_not_called(host: str) -> None:
    """As if it had been taken before: each try reads and checks the URL again."""
    receiver = Receiver()
    [barred] = asyncio.run(sent(receiver, Destinations(http=True), url=f"http://{host}:PORT/"))
    assert receiver.received == []
    assert str(barred.error).startswith("not sent: ")


def test_a_name_that_leads_inside_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver()
    for address in ("127.0.0.1", "10.0.0.7", "169.254.169.254"):
        look_up(monkeypatch, address)
        [barred] = asyncio.run(
            sent(receiver, Destinations(http=True), url="http://hooks.example:PORT/")
        )
        assert barred.error == "not sent: its name leads to an address that is not allowed"
        assert address not in barred.error
    assert receiver.received == []


@pytest.mark.parametrize("place", [0, 1])
def test_every_address_of_a_name_is_checked(monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    addresses = ["127.0.0.1"]  # which is allowed
    addresses.insert(place, "10.0.0.7")

    def getaddrinfo(_host: str, port: int, **_: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    receiver = Receiver()
    [barred] = asyncio.run(sent(receiver, url="http://hooks.example:PORT/"))
    assert barred.error == "not sent: its name leads to an address that is not allowed"
    assert receiver.received == []


def test_the_connection_goes_to_the_address_that_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = look_up(monkeypatch, "127.0.0.1", "127.0.0.66")
    receiver = Receiver()
    answers = asyncio.run(sent(receiver, url="http://hooks.example:PORT/", tries=2))
    assert answers[0] == Answer(status=200)
    assert str(answers[1].error).startswith("not sent: ")  # looked up and checked anew
    assert asked == ["hooks.example"] * 2
    [got] = receiver.received
    assert got.headers["host"] == f"hooks.example:{receiver.port}"


def test_over_tls_the_name_is_checked_though_an_address_is_called(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subject = ["-subj", "/CN=x", "-addext", "subjectAltName=DNS:hooks.example"]
    files = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([*made.split(), *subject, *files], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    look_up(monkeypatch, "127.0.0.1")
    receiver = Receiver([OK])

    async def send(name: str, context: ssl.SSLContext | None) -> Answer:
        async with receiver.listening(server), Post(LOCAL, context=context) as post:
            return await post.send(claimed(f"https://{name}:{receiver.port}/"))

    trusting = ssl.create_default_context(cafile=str(cert))
    assert asyncio.run(send("hooks.example", trusting)) == Answer(status=200)
    for name, context in (("other.example", trusting), ("hooks.example", None)):
        refused = asyncio.run(send(name, context))
        assert refused.status is None
        assert "certificate" in str(refused.error).lower()
    assert len(receiver.received) == 1
