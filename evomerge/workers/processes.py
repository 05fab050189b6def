"""Processes as the kernel shows them: which are stopped, ran out of memory, or are ours."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Look:
    """What can be seen of a worker's process: whether it is stopped, and its processor time."""

    stopped: bool
    cpu_s: float


def look_at(process_id: int) -> Look | None:
    """The state of a process on this machine; None if it is gone, or if there is no /proc."""
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold any character
    ticks = int(fields[11]) + int(fields[12])
    return Look(stopped=fields[0] in "TtZX", cpu_s=ticks / os.sysconf("SC_CLK_TCK"))


def shortage_kills() -> int:
    """How many processes the kernel has ended on this machine for lack of memory, so far."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def kill_writers(folder: str) -> None:
    """Kill all other processes of this machine that write to a file below a folder of that name.

    This also finds processes that outlived their parent. Does nothing if there is no /proc.
    """
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) != os.getpid() and _writes_below(process, folder):
            with contextlib.suppress(OSError):
                os.kill(int(process.name), signal.SIGKILL)


def _writes_below(process: Path, folder: str) -> bool:
    with contextlib.suppress(OSError):  # gone meanwhile, or another user's
        for opened in (process / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                if folder in Path(os.readlink(opened)).parts:
                    info = (process / "fdinfo" / opened.name).read_text()
                    flags = int(info.partition("flags:")[2].split()[0], 8)
                    if flags & os.O_ACCMODE != os.O_RDONLY:
                        return True
    return False
