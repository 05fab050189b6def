"""Processes of the tests, forked from one that has loaded the libraries; see forkserver.py.

What a process does is a function that pickle finds, or a command.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TextIO

from evomerge.cli import main
from tests import forkserver

ROOT = Path(__file__).parents[1]
_WAIT_S = 600.0

_servers: list[subprocess.Popen[bytes]] = []
"""Kept, because they end when nobody has their stdin."""


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A process that works. said: what it writes to stdout and stderr, line by line."""

    process: int
    link: socket.socket
    said: TextIO

    def send(self, number: int) -> None:
        os.kill(self.process, number)

    def wait(self) -> int:
        """Its exit code, or the signal that ended it as a negative number."""
        self.link.settimeout(_WAIT_S)
        return forkserver.ended(self.link)


def begin_forkserver(arguments: Sequence[str] = ()) -> str:
    """Begin the process that others are forked from; it ends with this one. Its address."""
    folder = tempfile.mkdtemp(prefix="forkserver-")
    address = os.path.join(folder, "socket")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.forkserver", address, *arguments],
        stdin=subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path)),
            "OMP_NUM_THREADS": "1",  # threads do not survive a fork
        },
    )
    _servers.append(server)
    while not os.path.exists(address):
        assert server.poll() is None, "the process that others are forked from has ended"
        time.sleep(0.02)
    return address


@cache
def _address() -> str:
    return os.environ.get(forkserver.ADDRESS) or begin_forkserver()


@contextmanager
def begin(work: Callable[..., object], *arguments: object) -> Iterator[Begun]:
    """Begin a process that does this work; it is killed where it still runs at the end."""
    reader, writer = os.pipe()
    with open(os.devnull, "rb") as nothing:
        streams = (nothing.fileno(), writer, writer)
        link, process = forkserver.order(_address(), pickle.dumps((work, arguments)), streams)
    os.close(writer)
    begun = Begun(process=process, link=link, said=os.fdopen(reader, encoding="utf-8"))
    try:
        with begun.said:
            yield begun
    finally:
        if link.fileno() >= 0:  # else it has ended, and another process may have its id
            begun.send(signal.SIGKILL)
            begun.wait()


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
