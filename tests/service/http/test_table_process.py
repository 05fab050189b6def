"""The process that reads a stranger's table: its limits, and the fields that its refusals name."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evomerge.service.http.problems import Problem
from evomerge.service.http.table_process import READING_BYTES, problem_of_line, run

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
    given: dict[str, str] = {}

    def start(_command: list[str], **options: Any) -> None:
        given.update(options["env"])
        raise OSError("no process")

    monkeypatch.setattr(subprocess, "Popen", start)
    with (tmp_path / "u1").open("wb+") as file, pytest.raises(OSError, match="no process"):
        run(file, None, OPTIONS, READING_BYTES)
    assert "PATH" in given
    assert "hidden" not in given.values()


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
