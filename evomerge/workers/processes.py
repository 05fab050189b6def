"""Processes as the kernel sees them: whether one stands still, and whether it ran out of memory."""

from __future__ import annotations

import os
from pathlib import Path

from evomerge.workers.dispatch import Look


def look_at(process_id: int) -> Look | None:
    """A process of this machine; None where it is gone, or where there is no /proc."""
    try:
        said = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return None
    fields = said.rpartition(")")[2].split()  # the name before may hold anything
    ticks = int(fields[11]) + int(fields[12])
    return Look(stopped=fields[0] in "TtZX", cpu_s=ticks / os.sysconf("SC_CLK_TCK"))


def shortage_kills() -> int:
    """How many processes the kernel has ended on this machine for want of memory, so far."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
