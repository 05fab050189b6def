"""Which process it is: its number alone may be another process's by now."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """A process of one boot of one machine.

    host: its name, to be shown. boot: id of this boot and of its space of process numbers. started:
    when the process began, in the kernel's own units.
    """

    host: str
    boot: str
    pid: int
    started: str
