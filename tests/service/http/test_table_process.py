"""The process that reads a stranger's table: its limits, and the fields that its refusals name."""

from __future__ import annotations

import asyncio
import io
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evomerge.service.http import table_process
from evomerge.service.http.problems import Problem
from evomerge.service.http.table_process import READING_BYTES, Tables, problem_of_line, run

OPTIONS = {"shown_as": "ours.csv", "encoding": None, "delimiter": None, "header": True}


def bomb() -> bytes:
    """A Parquet file of a few kilobytes whose one text stands for gigabytes."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), ["x" * 100_000])
    out = io.BytesIO()
    pq.write_table(pa.table({"question": column, "answer": column}), out, compression="zstd")
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "memory_bytes", "words"),
    [
        (bomb, READING_BYTES, "when unpacked"),
        (lambda: b"question\n" + b"x" * 2**24, 2**25, "more than 32 MiB of memory"),
        (
            lambda: b'{"question": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
            READING_BYTES,
            "nested too deep",
        ),
    ],
    ids=["parquet", "one line", "nesting"],
)
def test_a_table_that_would_take_all_memory_is_refused_in_one_line(
    data: Callable[[], bytes], memory_bytes: int, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "u1"
    file.write_bytes(data())
    assert file.stat().st_size < 2**25
    with file.open("rb") as opened, pytest.raises(Problem) as refused:
        run(opened, None, OPTIONS, memory_bytes)
    said = refused.value.document
    assert (said.status, said.field) == (422, "upload")
    assert words in said.detail and "\n" not in said.detail and str(tmp_path) not in said.detail
    assert said.mend


def test_the_process_gets_no_secret_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGPASSWORD", "EVOMERGE_DATABASE", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "hidden")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    given: dict[str, str] = {}

    def start(_command: list[str], **options: Any) -> None:
        given.update(options["env"])
        raise OSError("no process")

    monkeypatch.setattr(subprocess, "Popen", start)
    with (tmp_path / "u1").open("wb+") as file, pytest.raises(OSError, match="no process"):
        run(file, None, OPTIONS, READING_BYTES)
    assert "PATH" in given
    assert "hidden" not in given.values()
    assert given["HF_HUB_OFFLINE"] == "1"  # it asks no hub


def test_a_table_that_takes_too_long_is_refused_and_its_process_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[str]] = []
    start = subprocess.Popen

    def kept(*args: Any, **options: Any) -> subprocess.Popen[str]:
        started.append(start(*args, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", kept)
    monkeypatch.setattr(table_process, "_LONGEST_S", 0.0)
    with (tmp_path / "u1").open("wb+") as file, pytest.raises(Problem) as refused:
        run(file, None, OPTIONS, READING_BYTES)
    said = refused.value.document
    assert (said.status, said.field) == (422, "upload")
    assert "cannot be read within the limits" in said.detail
    assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_one_process_of_each_kind_runs_at_a_time_and_few_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Path | None] = []
    most, go = 0, threading.Event()

    def slow(_file: object, out: Path | None, *_: object) -> dict[str, Any]:
        nonlocal most
        runs.append(out)
        most = max(most, runs.count(out))
        assert go.wait(60)
        runs.remove(out)
        return {}

    monkeypatch.setattr(table_process, "run", slow)

    async def ask() -> Problem:
        tables, file = Tables(), io.BytesIO()
        asked = []
        for _ in range(9):  # one that runs, and eight that wait for it
            asked.append(asyncio.create_task(tables.describe(file, OPTIONS)))
            for _ in range(5):  # until it waits
                await asyncio.sleep(0)
        asked.append(asyncio.create_task(tables.make(file, tmp_path, OPTIONS)))
        try:
            while len(set(runs)) < 2:
                await asyncio.sleep(0.001)  # until one of each kind runs
            with pytest.raises(Problem) as refused:
                await asyncio.wait_for(tables.describe(file, OPTIONS), 10)
        finally:
            go.set()
        await asyncio.gather(*asked)
        return refused.value

    said = asyncio.run(ask())
    assert (said.document.status, most, runs) == (503, 1, [])
    assert said.headers["Retry-After"]


@pytest.mark.parametrize(
    ("line", "field", "value", "words"),
    [
        ("--answer 'x': t.csv has no such column; it has 'a'", "answer", "x", "`answer` 'x'"),
        ("t.csv: which column is the choices? give --choices COLUMN", "choices", None, "`choices`"),
        ("--count-from: there are no columns; leave it out", "count_from", None, "`count_from`"),
        ("t.csv: line 3: the answer 'x' is none; give --choices none", "upload", None, "`choices`"),
        ("t.csv: line 1: not utf-8; name it: --encoding cp1252", "upload", None, "`encoding`"),
        ("t.csv: which column is the answer? and --no-header if", "answer", None, "`header` false"),
    ],
)
def test_a_refusal_names_the_field_of_the_form(
    line: str, field: str, value: str | None, words: str
) -> None:
    said = problem_of_line(line).document
    assert (said.field, said.value, words in said.detail) == (field, value, True), said
    assert "--" not in said.detail
