"""All cores on one tensor: ranges of elements, one a thread, in compiled code without the lock.

What a range computes never depends on how the ranges were cut.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import torch

_LEAST = 2**16
"""Elements that are worth waking another thread for."""


def over_ranges(work: Callable[[int, int], None], count: int, *, unit: int) -> None:
    """Call `work(start, stop)` on ranges that cover [0, count), each cut at a multiple of `unit`.

    As many threads as torch uses take part, this one included.
    """
    threads = min(torch.get_num_threads(), max(1, count // max(_LEAST, unit)))
    if threads == 1:
        work(0, count)
        return
    units = -(-count // unit)
    cuts = [min(count, unit * (units * part // threads)) for part in range(threads + 1)]
    parts = [
        _pool(threads - 1, os.getpid()).submit(work, start, stop)
        for start, stop in pairwise(cuts[1:])
    ]
    work(cuts[0], cuts[1])
    for part in parts:
        part.result()


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that stay for the next tensor; a forked process has none of its parent's."""
    return ThreadPoolExecutor(threads, thread_name_prefix="merge")
