"""Asks the process that reads records, which is started when it is first needed.

Reading keeps Python busy, and leaves the libraries and the memory behind that it needs. In a
process of its own it delays no other answer, and the server stays as small as it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from evomerge import errors
from evomerge.service.http import logs
from evomerge.service.http.problems import Problem
from evomerge.service.http.reading import END

_LONGEST_S = 120.0
_READ_BYTES = 2**16
_COMMAND = (sys.executable, "-m", "evomerge.service.http.reading")


class ReadingFailed(RuntimeError):
    """A mistake of evomerge in the process that reads; the text is its trace."""


class Reader:
    """One process, which answers one question at a time."""

    def __init__(self, *, command: Sequence[str] = _COMMAND, longest_s: float = _LONGEST_S) -> None:
        self._command, self._longest_s = command, longest_s
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._closed: subprocess.Popen[bytes] | None = None

    def ask(self, what: str, folder: Path, **wanted: Any) -> list[bytes]:
        """The parts of an answer, each as JSON. Raises Problem, EvomergeError, ReadingFailed."""
        question = json.dumps({"what": what, "folder": str(folder), **wanted}).encode() + b"\n"
        with self._turn:
            process = self._started()
            late = False
            try:
                found = _answer(process, question, time.monotonic() + self._longest_s)
            except TimeoutError:
                found, late = None, True
            if found is None:
                process.kill()
                self._forget(process, late=late)
                raise Problem(
                    503,
                    f"reading the record took more than {self._longest_s:g} s"
                    if late
                    else "the process that reads records has ended",
                    mend="ask again; if it happens often, tell the operator",
                )
        parts, end = found
        if "trace" in end:
            raise ReadingFailed(end["trace"])
        if end:
            kind: type[errors.EvomergeError] = getattr(errors, end["error"], errors.RunError)
            raise kind(end["text"])
        return parts

    def start(self) -> None:
        """Start the process and let it load its libraries; a later question says what is wrong."""
        with contextlib.suppress(Problem, ReadingFailed):
            self.ask("nothing", Path())

    def close(self) -> None:
        """End the process, also in the middle of an answer; the next question starts another."""
        process = self._closed = self._process
        if process is not None:
            process.kill()
            process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            if self._process.poll() is None:
                return self._process
            self._forget(self._process, late=False)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            )
        except OSError as error:
            self._said.close()
            raise Problem(
                503,
                f"no process can be started to read the record ({error.strerror})",
                mend="ask again when fewer jobs run on the server's machine",
            ) from error
        return self._process

    def _forget(self, process: subprocess.Popen[bytes], *, late: bool) -> None:
        """Let go of a process that has ended, and log what it said last."""
        code = process.wait()
        said = self._said
        if said is not None:
            size = said.seek(0, os.SEEK_END)
            said.seek(max(0, size - 2000))
            text = said.read().decode("utf-8", "replace")
            if process is not self._closed:
                logs.log("reader_ended", level="warning", code=code, late=late, said=text)
            said.close()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                _close(pipe)
        self._process = self._said = None


def _answer(
    process: subprocess.Popen[bytes], question: bytes, until: float
) -> tuple[list[bytes], dict[str, str]] | None:
    """The parts and the end of an answer; None if the process ended before that.

    until: by the monotonic clock. Raises TimeoutError when that has passed.
    """
    assert process.stdin is not None
    parts: list[bytes] = []
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(question)
        process.stdin.flush()
        for line in _lines(process, until):
            if line.startswith(END):
                end: dict[str, str] = json.loads(line[1:])
                return parts, end
            parts.append(line[1:])
    return None


def _lines(process: subprocess.Popen[bytes], until: float) -> Iterator[bytes]:
    """Whole lines of what a process says. Raises TimeoutError."""
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    said = select.poll()
    said.register(pipe, select.POLLIN)
    rest = b""
    while True:
        if not said.poll(max(0.0, 1000.0 * (until - time.monotonic()))):
            raise TimeoutError
        got = os.read(pipe, _READ_BYTES)
        if not got:
            return
        *lines, rest = (rest + got).split(b"\n")
        yield from lines


def _close(pipe: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # a question was not sent whole
        pipe.close()
