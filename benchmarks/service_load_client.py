"""The watchers and requests of service_load.py, in a process of their own.

Watchers take live events as browsers do: from the beginning of a job to its end. A part of them
lose their connection at random and come back with Last-Event-ID. Requests begin at fixed times,
also while earlier ones are not answered, and are timed from then on: a server that stalls looks as
bad as it is. It prints what it saw as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import sys
import time
import zlib
from array import array
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

API = "/api/v1"
ALIVE = "state=queued&state=starting&state=running"
CONNECTIONS = 100
"""Requests under way at once; with more a request waits, which is part of its time."""
DRAIN_S = 120.0
MOST_DELAYS = 100_000
"""Delays of events that are kept, drawn from all of them, so that a long run needs no more."""
JOB = {
    "name": "simulated",
    "models": {"base": "base", "sources": ["arithmetic", "counting"]},
    "objectives": [{"task": "kana_arithmetic_en", "metric": "exact_match"}],
    "budget": {"candidates": 40},
}


class Server:
    """HTTP/1.1 to one server over loopback: little work for a request, so that more can be sent."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._places = asyncio.Semaphore(CONNECTIONS)
        self.closed = 0

    async def ask(
        self, method: str, path: str, token: str, document: object = None, key: str = ""
    ) -> tuple[int, bytes]:
        """Status and body of an answer, over a connection that is kept."""
        async with self._places:
            body = b"" if document is None else json.dumps(document).encode()
            more = f"Idempotency-Key: {key}\r\n" if key else ""
            head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{more}"
            sent = self._head(method, path, token, head) + body
            while True:
                is_kept, (reader, writer) = await self._connection()
                try:
                    return await self._exchange(reader, writer, sent)
                except (ConnectionError, asyncio.IncompleteReadError):
                    writer.close()
                    if not is_kept:
                        raise
                    # The server closed it while it was quiet; asked again, as a browser does.
                    self.closed += 1

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes
    ) -> tuple[int, bytes]:
        writer.write(sent)
        status, headers = await _answer_head(reader)
        if "content-length" in headers:
            content = await reader.readexactly(int(headers["content-length"]))
        else:
            content = b"".join([part async for part in _chunks(reader)])
        if headers.get("connection") == "close":
            writer.close()
        else:
            self._free.append((reader, writer))
        return status, content

    @contextlib.asynccontextmanager
    async def stream(self, path: str, token: str, last: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of a stream of events after a number; it is cut off where the block is left."""
        reader, writer = await self._open()
        try:
            head = f"accept: text/event-stream\r\nlast-event-id: {last}\r\n" if last else ""
            writer.write(self._head("GET", path, token, head))
            status, _ = await _answer_head(reader)
            if status not in (200, 204):
                raise RuntimeError(f"{path}: {status}")
            yield _lines(_chunks(reader)) if status == 200 else _nothing()
        finally:
            writer.transport.abort()

    async def _connection(self) -> tuple[bool, tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection, and whether it was used before."""
        while self._free:
            reader, writer = self._free.pop()
            if not reader.at_eof():  # the server closes quiet ones
                return True, (reader, writer)
            writer.close()
        return False, await self._open()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)

    def _head(self, method: str, path: str, token: str, more: str) -> bytes:
        host = f"host: 127.0.0.1:{self._port}\r\nauthorization: Bearer {token}\r\n"
        return f"{method} {API}{path} HTTP/1.1\r\n{host}{more}\r\n".encode()


async def _answer_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = text.strip().split("\r\n")
    return int(first.split()[1]), {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)


async def _lines(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line


async def _nothing() -> AsyncIterator[bytes]:
    for line in (b"event: end", b""):
        yield line


@dataclass
class Seen:
    """What was seen. whole: job, last number and checksum of each job that was seen to its end.

    answers: name -> when each request began, since the load did, and how long it took, in turn.
    jobs: that were submitted. closed: kept connections that the server had closed.
    """

    events: int = 0
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    cut: int = 0
    closed: int = 0
    jobs: int = 0
    unfinished: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    whole: list[tuple[str, int, int]] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)
    answers: defaultdict[str, array[float]] = field(
        default_factory=lambda: defaultdict(lambda: array("f"))
    )


class Load:
    """The load of one run."""

    def __init__(self, orders: dict[str, Any]) -> None:
        self.seen = Seen()
        self._orders = orders
        self._tokens: list[str] = orders["tokens"]
        self._server = Server(orders["port"])
        self._alive: list[str] = []
        self._running: list[str] = []
        self._ended = asyncio.Event()
        self._random = random.Random(orders["seed"])
        self._submitted = 0
        self._delays = 0
        self._began = 0.0

    async def run(self) -> None:
        """Fill the queue, watch and ask for so many seconds, then let every watcher see the end."""
        await self._fill()
        if not self._alive:
            sys.exit(f"no job could be submitted: {dict(self.seen.refused)}")
        self._began = asyncio.get_running_loop().time()
        tasks = [asyncio.create_task(self._keep_full())]
        tasks += [asyncio.create_task(self._watch(n)) for n in range(self._orders["watchers"])]
        tasks.append(asyncio.create_task(self._ask_steadily()))
        print("steady", flush=True)
        await asyncio.sleep(self._orders["seconds"])
        self._ended.set()
        print("ending", flush=True)
        for job in await self._list(ALIVE):
            await self._ask("cancel", "POST", f"/jobs/{job['id']}/cancel")
        _, pending = await asyncio.wait(tasks, timeout=DRAIN_S)
        self.seen.unfinished = len(pending)
        self.seen.jobs, self.seen.closed = self._submitted, self._server.closed
        for task in pending:
            task.cancel()
        for task in tasks:
            if task not in pending:
                task.result()

    async def _list(self, which: str) -> list[dict[str, Any]]:
        content = await self._ask("list of 500", "GET", f"/jobs?{which}&limit=500")
        listed: list[dict[str, Any]] = json.loads(content)["items"] if content else []
        return listed

    async def _fill(self) -> None:
        """As many jobs as the queue shall have, waiting and running."""
        missing = self._orders["jobs"] - len(await self._list(ALIVE))
        for _ in range(missing):
            self._submitted += 1
            asked = {"kind": "search", "name": f"simulated {self._submitted}", "job": JOB}
            key = f"load-{self._submitted}"
            await self._ask("submit", "POST", "/jobs", document=asked, key=key)
        alive = await self._list(ALIVE)
        self._alive = [job["id"] for job in alive] or self._alive
        self._running = [job["id"] for job in alive if job["state"] == "running"]

    async def _keep_full(self) -> None:
        while not self._ended.is_set():
            await self._pause(1.0)
            if not self._ended.is_set():
                await self._fill()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), seconds)

    # Requests.

    async def _ask_steadily(self) -> None:
        """Begin a request at each of the fixed times."""
        begun = asyncio.get_running_loop().time()
        under_way: set[asyncio.Task[bytes]] = set()
        figures_at = self._orders["figures_every_s"]
        for number in itertools.count():
            due = begun + number / self._orders["requests_per_s"]
            await self._pause(max(0.0, due - asyncio.get_running_loop().time()))
            if self._ended.is_set():
                break
            name, path = self._next(number)
            if figures_at and due - begun >= figures_at and self._running:
                figures_at += self._orders["figures_every_s"]
                name, path = "figures", f"/jobs/{self._random.choice(self._running)}/figures"
            task = asyncio.create_task(self._ask(name, "GET", path, due=due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        if under_way:
            await asyncio.wait(under_way)

    def _next(self, number: int) -> tuple[str, str]:
        if number % 5 == 0 or not self._running:
            return "list", "/jobs?limit=50"
        job = self._random.choice(self._running)
        name = ("job", "status", "candidates", "series")[number % 5 - 1]
        return name, f"/jobs/{job}" if name == "job" else f"/jobs/{job}/{name}"

    async def _ask(
        self,
        name: str,
        method: str,
        path: str,
        *,
        document: object = None,
        key: str = "",
        due: float | None = None,
    ) -> bytes:
        """Time a request; an answer above 399 is counted by its status, and has no content here."""
        clock = asyncio.get_running_loop().time
        begun = clock() if due is None else due
        token = self._random.choice(self._tokens)
        status, content = await self._server.ask(method, path, token, document, key)
        if self._began:
            self.seen.answers[name].extend((begun - self._began, clock() - begun))
        if status < 400:
            return content
        # A job may have ended since it was listed, or not have its record yet.
        self.seen.refused[f"{name} {status}"] += 1
        return b""

    # Watchers.

    async def _watch(self, number: int) -> None:
        """Watch one job after another, each from its first event to its end."""
        chance = random.Random(self._orders["seed"] + number)
        token = self._tokens[number % len(self._tokens)]
        is_cut = chance.random() < self._orders["cut_share"]
        while not self._ended.is_set():
            job, last, check, is_over = chance.choice(self._alive), 0, 0, False
            missing: set[int] = set()
            while not is_over:
                limit_s = chance.expovariate(1 / self._orders["cut_s"]) if is_cut else None
                with contextlib.suppress(
                    TimeoutError, asyncio.IncompleteReadError, ConnectionError
                ):
                    async with asyncio.timeout(limit_s):
                        async for seq, data in self._events(job, token, last):
                            if seq is None:
                                is_over = True
                                break
                            self._judge(seq, last, missing)
                            last, check = max(seq, last), zlib.crc32(data, check)
                if not is_over:
                    self.seen.cut += 1
            self.seen.lost += len(missing)
            self.seen.whole.append((job, last, check))

    def _judge(self, seq: int, last: int, missing: set[int]) -> None:
        self.seen.events += 1
        missing.update(range(last + 1, seq))
        if seq in missing:
            missing.discard(seq)
            self.seen.disordered += 1
        elif seq <= last:
            self.seen.doubled += 1

    def _note_delay(self, delay_s: float) -> None:
        """Keep a delay; once there are many, each that came has the same chance to be kept."""
        self._delays += 1
        if len(self.seen.delays_s) < MOST_DELAYS:
            self.seen.delays_s.append(delay_s)
        elif (place := self._random.randrange(self._delays)) < MOST_DELAYS:
            self.seen.delays_s[place] = delay_s

    async def _events(
        self, job: str, token: str, last: int
    ) -> AsyncIterator[tuple[int | None, bytes]]:
        """Number and body of each event that was received whole; None for the end."""
        begun = time.time()
        async with self._server.stream(f"/jobs/{job}/events", token, last) as lines:
            fields: dict[str, bytes] = {}
            async for line in lines:
                if line:
                    name, _, value = line.partition(b":")
                    fields[name.decode()] = value.removeprefix(b" ")
                    continue
                if fields.get("event") == b"end":
                    yield None, b""
                elif "id" in fields:
                    data = fields["data"]
                    kept_at = json.loads(data)["at"]
                    if kept_at > begun:
                        self._note_delay(time.time() - kept_at)
                    yield int(fields["id"]), data
                fields = {}


def main() -> None:
    """Load the server that the orders on standard input name."""
    orders = json.loads(sys.stdin.readline())
    load = Load(orders)
    asyncio.run(load.run())
    print(json.dumps({**vars(load.seen)}, default=list), flush=True)


if __name__ == "__main__":
    main()
