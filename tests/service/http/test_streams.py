"""Live events: each once and in order, from any number on, for any watcher, until the end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import StorageError
from evomerge.service.http import streams
from evomerge.service.http.job_logs import read_part
from evomerge.service.http.streams import Feeds, watch
from evomerge.service.store import events, jobs, people
from evomerge.service.store.jobs import Job
from tests.service.http.house import API, House, open_house


def parsed(text: str) -> list[dict[str, Any]]:
    """The events of a stream's text: id, event, data; comments and fields alone are left out."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":")
        )
        if "data" in fields:
            found.append({**fields, "data": json.loads(fields["data"])})
    return found


def numbers(text: str) -> list[int]:
    return [int(event["id"]) for event in parsed(text) if "id" in event]


def test_an_ended_job_gives_all_its_events_and_then_the_end(house: House) -> None:
    job = house.job()
    house.tell(job.id, [{"text": f"line {n}\n日本"} for n in range(30)])
    house.set_state(job.id, "succeeded")
    answer = house.get(f"/jobs/{job.id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    events = parsed(answer.text)
    assert numbers(answer.text) == list(range(1, 33))
    assert events[0]["data"]["state"] == "queued"
    assert events[1]["data"]["text"] == "line 0\n日本"
    assert events[-1]["event"] == "end"
    assert events[-1]["data"]["state"] == "succeeded"
    assert "id" not in events[-1]


def test_a_stream_goes_on_after_the_last_event_that_came(house: House) -> None:
    job = house.job()
    house.tell(job.id, [{}] * 10)
    house.set_state(job.id, "failed")
    for after in range(13):
        header = {"Last-Event-ID": str(after)}
        text = house.get(f"/jobs/{job.id}/events", headers=header).text
        assert numbers(text) == list(range(after + 1, 13))
    assert numbers(house.get(f"/jobs/{job.id}/events", params={"after": 7}).text) == [*range(8, 13)]
    done = house.get(f"/jobs/{job.id}/events", headers={"Last-Event-ID": "12"})
    assert done.status_code == 204
    assert house.get(f"/jobs/{job.id}/events", headers={"Last-Event-ID": "x"}).status_code == 422


@contextmanager
def open_stream(house: House, job: Job, **headers: str) -> Iterator[Iterator[str]]:
    with house.client.stream(
        "GET", f"{API}/jobs/{job.id}/events", headers={**house.as_("viewer"), **headers}
    ) as answer:
        assert answer.status_code == 200
        yield answer.iter_lines()


def test_a_running_job_is_followed_live(house: House) -> None:
    job = house.job(state="running")
    heard = threading.Event()
    lines: list[str] = []

    def follow() -> None:
        with open_stream(house, job) as stream:
            for line in stream:
                lines.append(line)
                if line == "id: 2":
                    heard.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert heard.wait(20)
    for _ in range(5):
        house.tell(job.id, [{}, {}])
    house.set_state(job.id, "succeeded")
    thread.join(20)
    text = "\n".join(lines)
    assert numbers(text) == list(range(1, 14))
    assert parsed(text)[-1]["event"] == "end"


# The feed itself, with many watchers in one event loop.


async def collected(
    feeds: Feeds, job: Job, after: int = 0, *, pause_s: float = 0.0, most: int | None = None
) -> list[int]:
    seen = []
    stream: AsyncIterator[Any] = watch(feeds, job, after, heartbeat_s=60.0, allowed=lambda: True)
    async for event in stream:
        if event.id is not None:
            seen.append(int(event.id))
            await asyncio.sleep(pause_s)
        if most is not None and len(seen) >= most:
            await stream.aclose()  # type: ignore[attr-defined]
            break
    return seen


def test_many_watchers_share_one_poller_and_each_gets_everything(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = house.job(state="running")
    reads = []
    read = streams.events.read
    monkeypatch.setattr(
        streams.events, "read", lambda *args, **kw: reads.append(kw["after"]) or read(*args, **kw)
    )

    async def play() -> list[list[int]]:
        feeds = Feeds(house.database, 0.005)
        watchers = [asyncio.create_task(collected(feeds, job)) for _ in range(50)]
        slow = asyncio.create_task(collected(feeds, job, pause_s=0.001))
        for _ in range(40):
            await asyncio.to_thread(house.tell, job.id, [{}] * 3)
            await asyncio.sleep(0.002)
        await asyncio.to_thread(house.set_state, job.id, "succeeded")
        found = await asyncio.gather(*watchers, slow)
        assert not feeds._feeds
        return found

    expected = list(range(1, 124))
    assert asyncio.run(play()) == [expected] * 51
    # Every watcher reads what was before it, the poller every later event once.
    assert len(reads) < 51 + 60


def test_a_watcher_far_behind_reads_the_database_and_loses_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HELD", 10)
    monkeypatch.setattr(streams, "PAGE", 7)
    job = house.job(state="running")

    async def play() -> list[list[int]]:
        feeds = Feeds(house.database, 0.002)
        watchers = [
            asyncio.create_task(collected(feeds, job, pause_s=pause)) for pause in (0.0, 0.003)
        ]
        for _ in range(15):
            await asyncio.to_thread(house.tell, job.id, [{}] * 20)
        late = asyncio.create_task(collected(feeds, job, after=100))
        await asyncio.to_thread(house.set_state, job.id, "cancelled")
        return await asyncio.gather(*watchers, late)

    first, slow, late = asyncio.run(play())
    assert first == slow == list(range(1, 304))
    assert late == list(range(101, 304))


def test_the_poller_ends_with_its_last_watcher(house: House) -> None:
    job = house.job(state="running")

    async def play() -> None:
        feeds = Feeds(house.database, 0.002)
        assert await collected(feeds, job, most=2) == [1, 2]
        assert not feeds._feeds
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(play())


def test_a_quiet_stream_says_that_it_is_there_until_the_watcher_may_not_watch(
    house: House,
) -> None:
    job = house.job(state="paused")
    answers = iter([True, True, False])

    async def play() -> list[str | None]:
        feeds = Feeds(house.database, 0.002)
        stream = watch(feeds, job, job.last_event, heartbeat_s=0.01, allowed=lambda: next(answers))
        return [event.comment async for event in stream]

    comments = asyncio.run(play())
    assert comments[1:] == ["still here", "still here"]


def test_a_stream_stays_open_while_the_database_is_away(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streams, "_AWAY_S", 0.0)
    away = {"get": 4, "read": 2, "allowed": 2}
    job = house.job(state="running")

    def failing(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            away[name] -= 1
            if away[name] >= 0:
                raise StorageError("the database gives no access")
            if name == "allowed" and away[name] == -1:
                house.set_state(job.id, "cancelled")
            return work(*args, **options)

        return call

    allowed = failing("allowed", lambda: True)
    monkeypatch.setattr(jobs, "get", failing("get", jobs.get))
    monkeypatch.setattr(events, "read", failing("read", events.read))

    async def play() -> list[str | None]:
        feeds = Feeds(house.database, 0.002)
        stream = watch(feeds, job, 0, heartbeat_s=0.01, allowed=allowed)
        return [event.id async for event in stream if event.id is not None]

    assert asyncio.run(play()) == ["1", "2", "3"]
    assert [record.message.split(": ")[1][:10] for record in caplog.records] == [
        "the databa",
        "over after",
    ]


def test_a_stream_ends_when_its_token_is_revoked(house: House) -> None:
    job = house.job(state="running")
    [token] = [each for each in people.tokens(house.database) if each.name == "viewer"]
    lines = []
    with open_stream(house, job) as stream:
        for line in stream:
            lines.append(line)
            if line.startswith(": still here"):
                house.ask("DELETE", f"/tokens/{token.id}", "admin")
    assert parsed("\n".join(lines))[-1]["event"] == "state"


@pytest.mark.parametrize(
    ("limit", "other"), [({"streams_per_token": 1}, "viewer"), ({"streams": 1}, "admin")]
)
def test_open_streams_of_a_token_and_of_the_server_are_limited(
    template: Path, tmp_path: Path, limit: dict[str, Any], other: str
) -> None:
    house = open_house(tmp_path / "data", template, **limit)
    job, ended = house.job(state="running"), house.job(state="succeeded")
    with house.client, open_stream(house, job) as stream:
        assert next(stream).startswith(":")
        refused = house.get(f"/jobs/{ended.id}/events", other)
        assert refused.status_code == 429
        assert "close one first" in refused.json()["mend"]
        house.set_state(job.id, "succeeded")
        assert "event: end" in list(stream)
        assert house.get(f"/jobs/{job.id}/events").status_code == 200
    house.database.close()


def test_a_job_that_is_purged_ends_its_streams(house: House) -> None:
    job = house.job(state="running")

    async def play() -> list[int]:
        feeds = Feeds(house.database, 0.002)
        watcher = asyncio.create_task(collected(feeds, job))
        await asyncio.sleep(0.05)
        monkey = pytest.MonkeyPatch()

        def gone(*_args: object, **_kwargs: object) -> Job:
            raise streams.NotFound("no such job", mend="check its id")

        monkey.setattr(streams.jobs, "get", gone)
        try:
            return await asyncio.wait_for(watcher, 20)
        finally:
            monkey.undo()

    assert asyncio.run(play()) == [1, 2]
    assert jobs.get(house.database, job.id).state == "running"


def test_the_log_is_read_in_parts_without_secrets(house: House) -> None:
    job = house.job(state="running")
    path = f"/jobs/{job.id}/logs"
    assert house.get(path).json() == {"text": "", "next": 0}
    file = house.settings.log_file(job.id)
    file.write_text("first line\npostgresql://u:hunter2@db/x failed\nhf_abcdefghijkl\n")
    shown = house.get(path).json()
    assert shown["text"].startswith("first line\n")
    assert "hunter2" not in shown["text"]
    assert "hf_abc" not in shown["text"]
    with file.open("a") as more:
        more.write("後の line\n")
    later = house.get(path, params={"after": shown["next"]}).json()
    assert later["text"] == "後の line\n"
    end = house.get(path, params={"after": -12}).json()
    assert end["text"] in ("", "後の line\n")
    assert house.get(path, params={"after": later["next"] + 10**6}).json()["text"] == ""


def test_no_cut_through_the_log_shows_a_piece_of_a_secret(house: House) -> None:
    job = house.job(state="running")
    file = house.settings.log_file(job.id)
    secrets = ["hunter2hunter2", "evm_ABCDEFGHIJKLMNOP", "whsec_QRSTUVWXYZabcdef"]
    line = "a postgresql://u:{}@db/x b {} c {} d\n".format(*secrets)
    text = "x" * 1000 + line + "y" * 2000 + "?token=" + "z" * 100 + "\n" + "end"
    file.write_text(text)
    pieces = [
        secret[at : at + 4] for secret in (*secrets, "z" * 99) for at in range(len(secret) - 3)
    ]
    hidden = [piece for piece in pieces if piece not in ("evm_", "whse", "hsec", "sec_")]

    def read(after: int) -> tuple[str, int]:
        return read_part(file, after=after, limit_bytes=1024, ended=False)

    for after in (*range(len(text)), *range(-len(text), 0)):
        shown, _ = read(after)
        assert not [piece for piece in hidden if piece in shown], after
    cut = {"after": text.index("hunter2") + 3, "limit": 1024}
    asked = house.get(f"/jobs/{job.id}/logs", params=cut).json()
    assert asked["text"].startswith("*** b evm_*** c whsec_*** d\n")
    parts, after = "", 0
    while (part := read(after))[0]:
        parts, after = parts + part[0], part[1]
    assert parts.startswith("x" * 1000 + "a postgresql://u:***@db/x b evm_*** c whsec_*** d\n")
    assert parts.endswith("\n")  # the last word may grow
    house.set_state(job.id, "failed")
    assert house.get(f"/jobs/{job.id}/logs").json()["text"].endswith("\nend")
