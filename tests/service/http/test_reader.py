"""The process that reads records: what the server says when it fails, is late or is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evomerge.errors import TaskError
from evomerge.service.http.problems import Problem
from evomerge.service.http.reader import Reader, ReadingFailed
from tests.service.http.house import House
from tests.service.test_imports import HEAVY

_PLAY = """
import json, sys, time
for line in sys.stdin:
    asked = json.loads(line)
    if asked["what"] == "sleep":
        time.sleep(600)
    if asked["what"] == "die":
        print("+1", flush=True)
        print("out of luck", file=sys.stderr)
        sys.exit(3)
    end = asked["end"]
    print("+" + json.dumps(asked["folder"]), "+[1]", "." + json.dumps(end), sep="\\n", flush=True)
"""
"""A process that answers as that one does, and as the question wants."""


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader(command=(sys.executable, "-S", "-c", _PLAY), longest_s=60.0)
    yield made
    made.close()


def test_an_answer_has_its_parts_and_its_error(reader: Reader) -> None:
    assert reader.ask("x", Path("/runs/a"), end={}) == [b'"/runs/a"', b"[1]"]
    with pytest.raises(TaskError, match="no such task"):
        reader.ask("x", Path("/"), end={"error": "TaskError", "text": "no such task"})
    with pytest.raises(ReadingFailed, match="line 3"):
        reader.ask("x", Path("/"), end={"trace": "line 3"})
    assert reader.ask("x", Path("/"), end={}) == [b'"/"', b"[1]"]


def test_another_process_reads_after_one_that_ended(
    reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Problem, match="has ended") as refused:
        reader.ask("die", Path("/"))
    assert refused.value.document.status == 503
    assert "out of luck" in capsys.readouterr().err
    assert reader.ask("x", Path("/"), end={}) == [b'"/"', b"[1]"]
    reader.close()
    assert not capsys.readouterr().err  # it was asked to
    assert reader.ask("x", Path("/"), end={}) == [b'"/"', b"[1]"]


def test_a_reading_that_takes_too_long_is_ended() -> None:
    reader = Reader(command=(sys.executable, "-S", "-c", _PLAY), longest_s=0.1)
    try:
        with pytest.raises(Problem, match="took more than"):
            reader.ask("sleep", Path("/"))
    finally:
        reader.close()


def test_the_process_reads_without_large_libraries_and_ends_with_its_server(house: House) -> None:
    job = house.searched()
    folder = str(house.settings.run_dir(job.id))
    large = [name for name in HEAVY if name != "optuna"]  # it reads the record
    program = (
        "import sys\nfrom evomerge.service.http.reading import main\nmain()\n"
        f"print([name for name in {large!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps({"what": "record", "folder": folder, "shown_as": job.id}) + "\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    *parts, end = done.stdout.splitlines()
    assert end == ".{}"
    assert json.loads(parts[0][1:])["run_dir"] == job.id
    assert folder not in done.stdout
    assert done.stderr == "[]\n"
