"""Which process it is: its number alone may be another process's by now."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """A process of one boot of one machine.

    host: its name, to be shown. boot: id of this boot and of its space of process numbers, which a
    container has for itself. started: when the process began, in the kernel's own units.
    """

    host: str
    boot: str
    pid: int
    started: str

    @property
    def is_here(self) -> bool:
        """Whether it is of this boot and this space of process numbers, so that it can be seen."""
        return self.boot == boot_id()

    @property
    def alive(self) -> bool:
        """Whether it still runs; only for one that `is_here`."""
        return started_at(self.pid) == self.started

    def send(self, number: int) -> bool:
        """Send a signal to this very process; False if it has ended."""
        if not hasattr(os, "pidfd_open"):
            if not self.alive:
                return False
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
                return True
            return False
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            # What the handle stands for cannot become another process any more.
            if not self.alive:
                return False
            signal.pidfd_send_signal(handle, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)


def own_identity() -> ProcessIdentity:
    """The identity of this process."""
    return identity_of(os.getpid())


def identity_of(pid: int) -> ProcessIdentity:
    """The identity of a process of this machine that runs."""
    started = started_at(pid)
    return ProcessIdentity(host=socket.gethostname(), boot=boot_id(), pid=pid, started=started)


@functools.cache
def boot_id() -> str:
    """The id of this boot, and of the space of process numbers."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat(_PROC / 'self/ns/pid').st_ino}"
    except OSError:
        said = subprocess.run(["sysctl", "-n", "kern.boottime"], capture_output=True, check=False)
        return said.stdout.decode().strip()


def started_at(pid: int) -> str:
    """When a process began; empty if there is none, or if it has ended and is not yet reaped."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return "" if _PROC.joinpath("self").exists() else _asked_of_ps(pid)
    # The name of the program, in brackets, may hold spaces and brackets itself.
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else rest[18]


def _asked_of_ps(pid: int) -> str:
    said = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, check=False)
    return said.stdout.decode().strip()


def marked(mark: str) -> Iterator[ProcessIdentity]:
    """Processes of this user whose environment holds the text, as a runner's own children do."""
    wanted = mark.encode()
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found = identity_of(int(folder.name))
                if found.started:
                    yield found
