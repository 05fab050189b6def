"""Asks the process that reads records, which is started when it is first needed.

Reading keeps Python busy, and leaves the libraries and the memory behind that it needs. In a
process of its own it delays no other answer, and the server stays as small as it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from evomerge import errors
from evomerge.service.http import logs
from evomerge.service.http.problems import Problem
from evomerge.service.http.reading import END

_LONGEST_S = 120.0
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
            late = threading.Event()

            def end_late() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(self._longest_s, end_late)
            timer.daemon = True
            timer.start()
            try:
                found = _answer(process, question)
            finally:
                timer.cancel()
            if found is None:
                self._forget(process, late=late.is_set())
                raise Problem(
                    503,
                    f"reading the record took more than {self._longest_s:g} s"
                    if late.is_set()
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
    process: subprocess.Popen[bytes], question: bytes
) -> tuple[list[bytes], dict[str, str]] | None:
    """The parts and the end of an answer; None if the process ended before that."""
    assert process.stdin is not None
    assert process.stdout is not None
    parts: list[bytes] = []
    with contextlib.suppress(OSError):
        process.stdin.write(question)
        process.stdin.flush()
        for line in process.stdout:
            if line.startswith(END) and line.endswith(b"\n"):
                end: dict[str, str] = json.loads(line[1:])
                return parts, end
            parts.append(line[1:-1])
    # It closed its pipe, so it ends; it must not stay if it does not.
    process.kill()
    return None


def _close(pipe: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # a question was not sent whole
        pipe.close()
