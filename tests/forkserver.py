"""A process that has loaded everything, from which the others of a test run are forked.

Loading the libraries and the test modules takes ten seconds, and a run has dozens of processes:
those of pytest-xdist, and those that tests begin, see processes.py. Here it happens once.

    python -m tests.forkserver SOCKET [ARGUMENT ...]

With arguments, it collects the tests as pytest would with them. It ends when its stdin does. It has
one thread: threads do not survive a fork.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import os
import pickle
import selectors
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ADDRESS = "EVOMERGE_TESTS_FORKSERVER"
"""The environment variable that names the socket."""

_SIZE = struct.Struct("!Q")
_NUMBER = struct.Struct("!q")
_STREAMS = 3


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a new process is to do. work: the pickle of a function and its arguments."""

    folder: str
    environment: Mapping[str, str]
    work: bytes


def order(address: str, work: bytes, streams: tuple[int, int, int]) -> tuple[socket.socket, int]:
    """Begin a process with these three streams: a connection that says how it ends, and its id."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.connect(address)
    sent = pickle.dumps(Order(folder=os.getcwd(), environment=dict(os.environ), work=work))
    socket.send_fds(link, [_SIZE.pack(len(sent))], list(streams))
    link.sendall(sent)
    return link, _number(link)


def ended(link: socket.socket) -> int:
    """Wait until the process ends: its exit code, or the signal as a negative number."""
    code = _number(link)
    link.close()
    return code


def _number(link: socket.socket) -> int:
    (number,) = _NUMBER.unpack(_read(link, _NUMBER.size))
    return int(number)


def _read(link: socket.socket, size: int) -> bytes:
    read = bytearray()
    while len(read) < size:
        more = link.recv(size - len(read))
        if not more:
            raise EOFError("the process that all are forked from has ended")
        read += more
    return bytes(read)


class Server:
    """Forks processes, and tells those who ordered them how they ended."""

    def __init__(self, address: str) -> None:
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(address)
        self._listening.listen(64)
        self._links: dict[int, socket.socket] = {}  # by process
        self._heard, self._hearing = socket.socketpair()
        self._hearing.setblocking(False)

    def serve(self) -> Callable[[], object] | None:
        """Serve until stdin ends. Returns in each forked process too, with what it is to do."""
        signal.set_wakeup_fd(self._hearing.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # those who ordered end what they began
        with selectors.DefaultSelector() as selector:
            for source in (sys.stdin.fileno(), self._listening, self._heard):
                selector.register(source, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._heard in ready:
                    self._heard.recv(4096)
                    self._tell()
                if self._listening in ready:
                    work = self._fork()
                    if work is not None:
                        return work
                if sys.stdin.fileno() in ready:
                    return None

    def _tell(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                process, status = os.waitpid(-1, os.WNOHANG)
                if process == 0:
                    return
                link = self._links.pop(process)
                with contextlib.suppress(OSError):  # nobody waits for it
                    link.sendall(_NUMBER.pack(os.waitstatus_to_exitcode(status)))
                link.close()

    def _fork(self) -> Callable[[], object] | None:
        link, _ = self._listening.accept()
        head, ancillary, _, _ = link.recvmsg(
            _SIZE.size, socket.CMSG_SPACE(_STREAMS * array.array("i").itemsize)
        )
        streams = array.array("i")
        for _, _, data in ancillary:
            streams.frombytes(data)
        (size,) = _SIZE.unpack(head)
        wanted: Order = pickle.loads(_read(link, size))
        process = os.fork()
        if process:
            for stream in streams:
                os.close(stream)
            self._links[process] = link
            link.sendall(_NUMBER.pack(process))
            return None
        self._forget()
        link.close()
        for place, stream in enumerate(streams):
            os.dup2(stream, place)
            os.close(stream)
        for out in (sys.stdout, sys.stderr):
            out.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        os.chdir(wanted.folder)
        os.environ.clear()
        os.environ.update(wanted.environment)

        def do() -> object:
            function, arguments = pickle.loads(wanted.work)
            return function(*arguments)

        return do

    def _forget(self) -> None:
        """What belongs to the server only, in a process that was forked from it."""
        signal.set_wakeup_fd(-1)
        # As the shell begins a command, whatever is ignored or handled where the tests run.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for link in (self._listening, self._heard, self._hearing, *self._links.values()):
            link.close()


def python(code: str) -> None:
    """What `python -u -c` does with this code."""
    names: dict[str, Any] = {"__name__": "__main__"}
    sys.argv = ["-c"]
    try:
        exec(code, names)
    finally:
        atexit._run_exitfuncs()


def _end(work: Callable[[], object]) -> None:
    """Do it, and end without taking the libraries down, object by object."""
    code: object = 0
    try:
        work()
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        if code is not None and not isinstance(code, int):
            with contextlib.suppress(OSError, ValueError):
                print(code, file=sys.stderr, flush=True)
            code = 1
        os._exit(code or 0)


def _load(arguments: list[str]) -> None:
    """Load what all need; with arguments, by collecting the tests that pytest would."""
    if arguments:
        import pytest

        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            pytest.main([*arguments, "--collect-only", "-qq", "-p", "no:xdist"])
    import tests.preloaded  # noqa: F401


def _threads() -> list[str]:
    """The names of this process's other threads, but for one that is made anew after a fork."""
    tasks = Path("/proc/self/task")
    others = [task for task in tasks.iterdir() if task.name != str(os.getpid())]
    return sorted({(task / "comm").read_text().strip() for task in others} - {"jemalloc_bg_thd"})


if __name__ == "__main__":
    from tests import forkserver  # pickle knows it by this name

    address, *rest = sys.argv[1:]
    forkserver._load(rest)
    missed = forkserver._threads()
    assert missed == [], f"what is forked would miss these threads: {missed}"
    found = forkserver.Server(address).serve()
    if found is not None:
        forkserver._end(found)
