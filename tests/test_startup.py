"""How a process uses memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_THREADS = """
import ctypes, sys, threading
from evomerge.startup import share_heap
if sys.argv[1] == "shared":
    share_heap()
together = threading.Barrier(8)
def hold():
    held = [bytes(1000) for _ in range(10)]
    together.wait()
threads = [threading.Thread(target=hold) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
c = ctypes.CDLL(None)
c.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(c.fdopen(1, b"w"))
c.malloc_info(0, out)
c.fflush(out)
"""


def test_the_threads_of_a_process_share_one_heap() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("of glibc")
    heaps = [
        subprocess.run(
            [sys.executable, "-c", _THREADS, how], capture_output=True, text=True, check=True
        ).stdout.count("<heap ")
        for how in ("shared", "each")
    ]
    assert heaps[0] == 1 < heaps[1]
