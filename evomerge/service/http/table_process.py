"""Runs the process that reads a stranger's table: limits, no secret, and refusals in one line."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import anyio
import anyio.to_thread

from evomerge.errors import hide_secrets
from evomerge.service.http import logs
from evomerge.service.http.problems import Problem
from evomerge.service.store.upload_files import no_room

READING_BYTES = 3 * 2**30
MAKING_BYTES = 6 * 2**30
"""Memory to read a table, and to make a task of it, which loads large libraries."""

_LONGEST_S = 180.0
_MOST_WAITING = 8
_SECRET = re.compile(r"^EVOMERGE_|PASS|TOKEN|SECRET|KEY|CREDENTIAL")
"""Names of variables that may hold one."""

_OPTION = re.compile(r"--(no-)?([a-z]+(?:-[a-z]+)*)")
_PART = re.compile(r"which column is the (question|answer|context|choices)\?")
_OWN = frozenset({"encoding", "delimiter", "header"})
"""Options that say how the file is read; they are the upload's."""
_COLUMNS = frozenset({"question", "answer", "choices", "context"})
_FIELDS = _COLUMNS | {
    "name",
    "kind",
    "prompt",
    "stop",
    "max_tokens",
    "fewshot",
    "count_from",
    "models",
    "within",
}


class Tables:
    """One process at a time for each kind of work; others wait without holding a thread."""

    def __init__(self) -> None:
        self._turns = {"read": anyio.CapacityLimiter(1), "make": anyio.CapacityLimiter(1)}

    async def describe(self, file: BinaryIO, options: Mapping[str, Any]) -> dict[str, Any]:
        """Format, columns and rows of a table. Raises Problem, NoRoom."""
        return await self._run("read", file, None, options, READING_BYTES)

    async def make(self, file: BinaryIO, out: Path, options: Mapping[str, Any]) -> dict[str, Any]:
        """The report of a task that is made in the new folder `out`. Raises Problem, NoRoom."""
        return await self._run("make", file, out, options, MAKING_BYTES)

    async def _run(
        self,
        work: str,
        file: BinaryIO,
        out: Path | None,
        options: Mapping[str, Any],
        memory_bytes: int,
    ) -> dict[str, Any]:
        turn = self._turns[work]
        if turn.statistics().tasks_waiting >= _MOST_WAITING:
            raise Problem(
                503,
                f"{_MOST_WAITING} tables wait already to be read",
                mend="try again in a minute",
                headers={"Retry-After": "30"},
            )
        return await anyio.to_thread.run_sync(run, file, out, options, memory_bytes, limiter=turn)


def run(
    file: BinaryIO, out: Path | None, options: Mapping[str, Any], memory_bytes: int
) -> dict[str, Any]:
    """What the process answers. Raises Problem, NoRoom."""
    number = file.fileno()
    command = [sys.executable, "-P", "-m", "evomerge.service.http.task_maker", f"/dev/fd/{number}"]
    command += [] if out is None else [str(out)]
    # It reads a stranger's table, so it gets no secret of the server.
    harmless = {name: os.environ[name] for name in os.environ if not _SECRET.search(name)}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=(number,),
        env={**harmless, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        start_new_session=True,
    )
    try:
        asked = json.dumps({"options": dict(options), "memory_bytes": memory_bytes})
        said, complaint = process.communicate(asked, timeout=_LONGEST_S)
    except subprocess.TimeoutExpired:
        raise _beyond(options) from None
    finally:
        with contextlib.suppress(ProcessLookupError):  # also what it has started itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode == 0:
        answer: dict[str, Any] = json.loads(said)
        return answer
    line = complaint.strip().rpartition("\n")[2]
    if process.returncode == 3:
        raise no_room()
    if process.returncode == 2:
        raise problem_of_line(line)
    if process.returncode < 0:
        raise _beyond(options)
    logs.log("table_process_failed", code=process.returncode, error=hide_secrets(line)[:500])
    raise Problem(
        500,
        "the table could not be read, by a mistake of evomerge; the server's log has the reason",
        mend="tell its operator",
    )


def _beyond(options: Mapping[str, Any]) -> Problem:
    return Problem(
        422,
        f"{options['shown_as']}: cannot be read within the limits of memory and {_LONGEST_S:g} s",
        field="upload",
        mend="draw some rows, a few thousand are enough for any score",
    )


def problem_of_line(line: str) -> Problem:
    """A line of the command line as a problem, with the form's own names for its options."""
    first = _OPTION.match(line)
    asked = _PART.search(line)
    field = asked[1] if asked else "upload"
    value = None
    if first is not None:
        name = form_name(first[2])
        field = name if name in _FIELDS | _OWN else field
        value = line[first.end() :].partition(": ")[0].strip(" :'") or None
    words = in_form_names(line)
    mend = words.rpartition("; ")[2] if "; " in words else None
    return Problem(422, words or "it cannot be read", field=field, value=value, mend=mend)


def form_name(option: str) -> str:
    """The form's name for an option of the command line."""
    return "models" if option == "model" else option.replace("-", "_")


def in_form_names(text: str) -> str:
    """A sentence of the command line with the form's names: `fewshot`, and not --fewshot."""

    def named(found: re.Match[str]) -> str:
        name = form_name(found[2])
        if name not in _FIELDS | _OWN:
            return found[0]
        return f"`{name}` false" if found[1] else f"`{name}`"

    return _OPTION.sub(named, text)
