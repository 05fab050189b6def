"""Processes of the tests, forked from one that has loaded the libraries, which takes six seconds.

That one is begun with the first of them, once for each process of pytest, and has no threads. What
a process does is a function that pickle finds, or a command.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TextIO

import pytest

from evomerge.cli import main

ROOT = Path(__file__).parents[1]

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["tests.preloaded"])


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A process that works. said: what it writes to stdout and stderr, line by line."""

    process: ForkServerProcess
    said: TextIO

    def send(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait(self) -> int:
        """Its exit code, or the signal that ended it as a negative number."""
        self.process.join(timeout=600)
        assert self.process.exitcode is not None, "it does not end"
        return self.process.exitcode


@contextmanager
def begin(work: Callable[..., object], *arguments: object) -> Iterator[Begun]:
    """Begin a process that does this work; it is killed where it still runs at the end."""
    reader, writer = _FORKING.Pipe(duplex=False)
    process = _FORKING.Process(
        target=_do, args=(writer, os.getcwd(), dict(os.environ), work, arguments)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), *sys.path)))
        process.start()
    writer.close()
    try:
        with os.fdopen(os.dup(reader.fileno()), encoding="utf-8") as said:
            yield Begun(process=process, said=said)
    finally:
        reader.close()
        process.kill()
        process.join()


def finish(work: Callable[..., object], *arguments: object) -> str:
    """Do this work in a process of its own; what it said. It is to end well."""
    with begin(work, *arguments) as begun:
        said = begun.said.read()
        assert begun.wait() == 0, said
    return said


def command(*arguments: str) -> None:
    """The work of `evomerge` with these arguments."""
    sys.argv = ["evomerge", *arguments]
    main()


def _do(
    writer: Connection,
    folder: str,
    environment: Mapping[str, str],
    work: Callable[..., object],
    arguments: tuple[object, ...],
) -> None:
    for place in (1, 2):
        os.dup2(writer.fileno(), place)
    writer.close()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    # As the shell begins a command, whatever is ignored or handled where the tests run.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    work(*arguments)
