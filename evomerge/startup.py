"""How a process of ours uses memory: fewer garbage collections while it loads, one heap.

The libraries make some million objects that live as long as the process. Python's collector looks
through them again and again while they are made, a fifth of the time that loading takes.
"""

from __future__ import annotations

import ctypes
import gc
import sys

_RARE = (100_000, 50, 100)
"""Still collected, so that a command that never says that it has loaded cannot grow for ever."""

_ARENA_MAX = -8
"""glibc's number of the setting (M_ARENA_MAX): how many heaps a process may have."""

_usual: tuple[int, int, int] | None = None


def begin_loading() -> None:
    """Collect rarely from here on. For processes of our own only: it is set for the whole process.

    Does nothing the second time, or where collections were switched off before.
    """
    global _usual
    if _usual is None and gc.isenabled() and gc.get_threshold()[0]:
        _usual = gc.get_threshold()
        gc.set_threshold(*_RARE)


def end_loading() -> None:
    """Collect as usual again, and look no more at what was loaded; after `begin_loading` only."""
    global _usual
    if _usual is not None:
        gc.freeze()
        gc.set_threshold(*_usual)
        _usual = None


def share_heap() -> None:
    """Let the threads of a process that runs for long share one heap; call it before they begin.

    glibc gives many threads a heap each, and what one thread has freed no other can use: a server
    grows without holding more. Threads of Python seldom allocate at the same time, so one heap
    delays none. Does nothing where the C library is another.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_ARENA_MAX, 1)
