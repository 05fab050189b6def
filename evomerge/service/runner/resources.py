"""Room on the disk and in memory: asked before a job begins, and watched while it runs."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_CGROUP = Path("/sys/fs/cgroup")
RUNNING_SHARE = 4
"""A job that runs is stopped at this fraction of the room that one needs to begin."""


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """What there is too little of."""

    cause: Literal["disk", "memory"]
    free_bytes: int
    least_bytes: int
    where: str

    def __str__(self) -> str:
        return (
            f"{self.where}: {self.free_bytes / 2**20:,.0f} MiB are free, and "
            f"{self.least_bytes / 2**20:,.0f} MiB must be; make room"
        )


def shortage(folder: Path, *, least_disk_bytes: int, least_memory_bytes: int) -> Shortage | None:
    """What is short on this machine; None if there is room."""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(folder).free
        if free < least_disk_bytes:
            return Shortage(
                cause="disk", free_bytes=free, least_bytes=least_disk_bytes, where=str(folder)
            )
    available = available_memory()
    if available is not None and available < least_memory_bytes:
        return Shortage(
            cause="memory",
            free_bytes=available,
            least_bytes=least_memory_bytes,
            where="memory of this machine",
        )
    return None


def available_memory() -> int | None:
    """Bytes that a process may still take: of the machine, or of its control group if less."""
    found = [each for each in (_of_machine(), _of_group()) if each is not None]
    return min(found, default=None)


def _of_machine() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return None


def _of_group() -> int | None:
    """What is left of the limit of a container; files that the kernel can drop count as free."""
    with contextlib.suppress(OSError, ValueError):
        most = (_CGROUP / "memory.max").read_text().strip()
        if most == "max":
            return None
        used = int((_CGROUP / "memory.current").read_text())
        pairs = (line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        dropped = sum(int(count) for name, count in pairs if name == "inactive_file")
        return int(most) - used + dropped
    return None
