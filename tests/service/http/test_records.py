"""What a search has recorded, over HTTP: the numbers of the Python API."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio.to_thread
import pytest

import evomerge
from evomerge.service.http import kept as kept_values
from evomerge.service.http import records
from evomerge.service.http.problems import Problem
from evomerge.service.http.reader import Reader
from evomerge.service.http.reading import ROWS
from tests.service.http.house import ROOT, House


@pytest.fixture(autouse=True)
def _at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    """The records name their models from there."""
    monkeypatch.chdir(ROOT)


def test_the_outcome_has_the_numbers_of_the_python_api(house: House) -> None:
    job = house.searched()
    result = evomerge.open_run(house.settings.run_dir(job.id))
    shown = house.get(f"/jobs/{job.id}/winner").json()
    assert shown["headline"] == result.headline
    assert shown["verdict"] == result.verdict
    assert result.gain is not None
    assert {key: shown["gain"][key] for key in ("value", "low", "high")} == {
        "value": result.gain.value,
        "low": result.gain.low,
        "high": result.gain.high,
    }
    assert shown["winner"]["label"] == result.winner.label
    assert shown["winner"]["recipe"] == result.winner.recipe.to_yaml()
    table = result.scores()
    rows = house.get(f"/jobs/{job.id}/scores").json()["models"]
    assert [row["label"] for row in rows] == list(table.index)
    assert [row["score"]["value"] for row in rows] == list(table[("score", "value")])
    candidates = house.get(f"/jobs/{job.id}/candidates").json()
    trials = result.trials_dataframe()
    assert candidates["total"] == len(trials)
    assert [row["candidate"] for row in candidates["items"]] == list(trials["candidate"])
    some = house.get(f"/jobs/{job.id}/candidates", params={"offset": 2, "limit": 3}).json()
    assert some["items"] == candidates["items"][2:5]
    status = house.get(f"/jobs/{job.id}/status").json()
    assert status["finished"] is True
    assert status["candidates"] == result.candidates


def test_a_front_has_its_points(house: House) -> None:
    job = house.searched(kind="front")
    shown = house.get(f"/jobs/{job.id}/winner").json()
    assert shown["kind"] == "front"
    assert shown["winner"] is None
    assert len(shown["points"]) >= 1
    label = shown["points"][0]["label"]
    recipe = house.get(f"/jobs/{job.id}/recipe", params={"point": label})
    assert recipe.text == shown["points"][0]["recipe"]
    assert house.get(f"/jobs/{job.id}/recipe").status_code == 422
    assert house.get(f"/jobs/{job.id}/recipe", params={"point": "none"}).status_code == 422


def test_recipes_are_given_as_yaml(house: House) -> None:
    job = house.searched()
    recipe = house.get(f"/jobs/{job.id}/recipe")
    assert recipe.headers["content-type"].startswith("application/yaml")
    assert recipe.text == house.get(f"/jobs/{job.id}/winner").json()["winner"]["recipe"]
    candidate = house.get(f"/jobs/{job.id}/candidates").json()["items"][-1]["candidate"]
    other = house.get(f"/jobs/{job.id}/recipe", params={"trial": candidate})
    assert other.text.startswith("merge_method")
    for trial in ("g9999-i999", "rubbish", "../x"):
        answer = house.get(f"/jobs/{job.id}/recipe", params={"trial": trial})
        assert answer.status_code == 422


def test_a_record_is_read_once_until_it_changes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = house.searched()
    reads = []
    ask = Reader.ask

    def counted(self: Reader, what: str, folder: Path, **wanted: Any) -> list[bytes]:
        reads.append(what)
        return ask(self, what, folder, **wanted)

    monkeypatch.setattr(Reader, "ask", counted)
    for path in ("status", "winner", "scores", "candidates", "status"):
        assert house.get(f"/jobs/{job.id}/{path}").status_code == 200
    assert reads == ["record"]
    kept = kept_values.Kept[int]()
    values = iter([1, 2, 3])
    assert kept.get("a", ((1, 1, 1),), lambda: next(values)) == 1
    assert kept.get("a", ((1, 1, 1),), lambda: next(values)) == 1
    assert kept.get("b", (), lambda: next(values)) == 2


def test_a_changed_record_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: moment[0])
    kept = kept_values.Kept[int]()
    values = iter([1, 2])

    def read() -> int:
        moment[0] += 0.1  # it takes a tenth of a second
        return next(values)

    assert kept.get("a", ((1, 1, 1),), read) == 1
    moment[0] += 0.5
    assert kept.get("a", ((1, 2, 1),), read) == 1
    moment[0] += 1.0
    assert kept.get("a", ((1, 2, 1),), read) == 2


def test_reading_changed_records_leaves_time_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: moment[0])
    kept = kept_values.Kept[str](turns=kept_values.Turns())
    reads: list[str] = []

    def ask(key: str, change: int, *, settled: bool = False) -> str:
        def read() -> str:
            moment[0] += 0.1
            reads.append(f"{key}{change}")
            return reads[-1]

        return kept.get(key, ((change, 0, 0),), read, settled=settled)

    for key in "abc":  # nothing is kept of them, so all are read
        assert ask(key, 1) == f"{key}1"
    moment[0] += 5.0
    assert [ask(key, 2) for key in "abc"] == ["a2", "b1", "c1"]
    moment[0] += 0.2
    assert ask("b", 2) == "b1"  # three times as long as the last reading has not passed
    assert ask("b", 2, settled=True) == "b2"  # a search that has ended is shown as it is
    moment[0] += 0.31
    assert ask("c", 2) == "c2"


def test_kept_values_leave_when_they_grow_too_large_together() -> None:
    kept = kept_values.Kept[bytes](most_bytes=10, size_of=len)
    reads: list[str] = []

    def ask(key: str, size: int) -> bytes:
        def read() -> bytes:
            reads.append(key)
            return bytes(size)

        return kept.get(key, (), read, settled=True)

    for key, size in (("a", 4), ("b", 4), ("a", 4), ("c", 4), ("a", 4), ("b", 4)):
        assert len(ask(key, size)) == size
    assert reads == ["a", "b", "c", "b"]  # b was asked for longest ago when c came
    ask("large", 40)
    ask("large", 40)  # alone it may be larger
    ask("a", 4)
    assert reads[4:] == ["large", "a"]


def test_rows_of_candidates_are_taken_from_their_parts() -> None:
    rows = [{"candidate": number} for number in range(2 * ROWS + 7)]
    parts = [json.dumps(rows[begin : begin + ROWS]).encode() for begin in range(0, len(rows), ROWS)]
    record = records.RecordText.of([b"{}", b"null", b"{}", str(len(rows)).encode(), *parts])
    assert record.total == len(rows)
    assert record.outcome is None
    for offset in (0, 3, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS, len(rows) - 1, len(rows), 5 * ROWS):
        for limit in (1, 2, ROWS, 2 * ROWS, 20_000):
            page = json.loads(record.candidates(offset, limit))
            assert page == {"items": rows[offset : offset + limit], "total": len(rows)}


def test_only_parts_that_a_page_cuts_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"candidate": number} for number in range(4 * ROWS + 7)]
    parts = [json.dumps(rows[begin : begin + ROWS]).encode() for begin in range(0, len(rows), ROWS)]
    record = records.RecordText.of([b"{}", b"null", b"{}", str(len(rows)).encode(), *parts])
    decoded = []

    def loads(text: bytes) -> Any:
        decoded.append(parts.index(text))
        return json.loads(text)

    monkeypatch.setattr(records, "json", SimpleNamespace(loads=loads, dumps=json.dumps))
    record.candidates(0, 20_000)
    record.candidates(ROWS, 2 * ROWS)
    assert decoded == []
    record.candidates(1, 3 * ROWS)
    assert decoded == [0, 3]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "half \ud83d a pair"])
def test_rows_are_json_that_browsers_read(value: object) -> None:
    """Not what Python alone reads: a number that is not finite, and a text that is no UTF-8."""
    row = {"candidate": "g0001-i000", "label": "十", "value": value}
    text = json.dumps([row], ensure_ascii=False).encode("utf-8", "surrogatepass")
    record = records.RecordText.of([b"{}", b"null", text[1:-1], b"1", text])
    wanted = {**row, "value": value if isinstance(value, str) else None}
    for sent in (record.series, record.candidates(0, 1)[len(b'{"items":[') :].split(b"]")[0]):
        assert json.loads(sent.decode(), parse_constant=pytest.fail) == wanted


@pytest.mark.parametrize(
    "what",
    [
        *("status", "winner", "scores", "candidates", "series"),
        *("figures", "coefficients", "answers"),
    ],
)
def test_no_other_request_waits_until_an_answer_of_a_record_is_written(
    house: House, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    job = house.job(state="succeeded")
    at_work, may_end = threading.Event(), threading.Event()
    waited = []

    def wait(*_args: object) -> Any:
        at_work.set()
        waited.append(may_end.wait(20))
        raise Problem(503, "the test has ended")

    class Slow:
        """A record of which every answer takes long to write."""

        __getattr__ = wait

    monkeypatch.setattr(records.Records, "_view", lambda *_args: Slow())
    monkeypatch.setattr(records.Records, "_drawn", lambda *_args: b"{}")
    monkeypatch.setattr(records.Records, "folder", lambda *_args: house.settings.data)
    monkeypatch.setattr(Reader, "ask", lambda *_args, **_wanted: [b"{}"])
    monkeypatch.setattr(records, "json", SimpleNamespace(loads=wait))
    with ThreadPoolExecutor(1) as other:
        slow = other.submit(house.get, f"/jobs/{job.id}/{what}")
        assert at_work.wait(60)
        assert house.get("/session").status_code == 200
        assert waited == []  # else the other request was answered after it
        may_end.set()
        assert slow.result().status_code == 503


def test_a_failed_reading_leaves_its_turn() -> None:
    kept = kept_values.Kept[int](turns=kept_values.Turns())

    def fail() -> int:
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        kept.get("a", (), fail)
    assert kept.get("a", (), lambda: 1) == 1


def test_reading_records_leaves_threads_for_other_requests(house: House) -> None:
    at_work = threading.Semaphore(0)
    may_end = threading.Event()

    def read() -> None:
        at_work.release()
        may_end.wait()

    async def play() -> str:
        of = records.Records(house.settings)
        reads = [asyncio.create_task(of.read(read)) for _ in range(50)]
        try:
            # With 50 threads waiting, this would wait for ever.
            async with asyncio.timeout(30):
                for _ in range(8):
                    await anyio.to_thread.run_sync(at_work.acquire, abandon_on_cancel=True)
                return await anyio.to_thread.run_sync(lambda: "answered", abandon_on_cancel=True)
        finally:
            may_end.set()
            await asyncio.gather(*reads)

    assert asyncio.run(play()) == "answered"


def test_a_search_without_a_record_says_what_it_waits_for(house: House) -> None:
    job = house.job()
    for path in ("status", "winner", "scores", "candidates", "recipe", "answers", "figures"):
        answer = house.get(f"/jobs/{job.id}/{path}")
        assert answer.status_code == 409
        assert "it is queued" in answer.json()["detail"]
    check = house.job("check", request={"job": {}})
    assert "has no record" in house.get(f"/jobs/{check.id}/status").json()["detail"]


def test_a_damaged_record_is_one_line(house: House) -> None:
    job = house.searched()
    (house.settings.run_dir(job.id) / "study.db").write_bytes(b"rubbish")
    answer = house.get(f"/jobs/{job.id}/status")
    assert answer.status_code == 422
    assert "\n" not in answer.json()["detail"]


def test_figures_are_made_by_another_process(house: House) -> None:
    job = house.searched()
    figures = house.get(f"/jobs/{job.id}/figures").json()["figures"]
    assert {"search", "test.combined"} <= set(figures)
    assert figures["search"]["spec"]["data"]


def test_a_report_has_no_rights_on_the_site(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    job = house.searched()
    monkeypatch.setattr(records.Records, "_draw", lambda *_args: b"<!doctype html><p>")
    report = house.get(f"/jobs/{job.id}/report")
    assert report.headers["content-type"].startswith("text/html")
    policy = report.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none';")
    assert "allow-same-origin" not in policy
    assert report.text.startswith("<!doctype html>")
