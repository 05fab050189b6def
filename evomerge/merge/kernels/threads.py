"""All cores work on one tensor: each thread runs compiled code on a range, without the GIL.

The result never depends on where the ranges are cut.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise

from evomerge.deferred import torch

_LEAST = 2**16
"""Elements that are worth waking another thread for."""


def over_ranges(work: Callable[[int, int], None], count: int, *, unit: int) -> None:
    """Call `work(start, stop)` on ranges that cover [0, count), each cut at a multiple of `unit`.

    As many threads as torch uses take part, this one included. All of them have ended when this
    returns or raises: they work in memory that the caller may then free.
    """
    threads = min(threads_here(), max(1, count // max(_LEAST, unit)))
    if threads == 1:
        work(0, count)
        return
    units = -(-count // unit)
    cuts = [min(count, unit * (units * part // threads)) for part in range(threads + 1)]
    parts: list[Future[None]] = []
    try:
        for start, stop in pairwise(cuts[1:]):
            parts.append(_pool(threads - 1, os.getpid()).submit(work, start, stop))
        work(cuts[0], cuts[1])
    finally:
        wait(parts)
    for part in parts:
        part.result()


def threads_here() -> int:
    """As many as torch uses, or would use if it were imported."""
    if "torch" in sys.modules:
        return torch.get_num_threads()
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdecimal() and int(stated):
        return int(stated)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that are kept for the next tensor; a forked process makes its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="merge")


# Elementwise functions over blocks that stay in the cache, on all threads.


_BLOCK = 2**16  # elements; large enough to hide Python, small enough for the second-level cache


def blockwise(
    function: Callable[..., torch.Tensor], tensors: Sequence[torch.Tensor], out: torch.Tensor
) -> None:
    """Write function(blocks of the tensors) into `out`, block by block, rounded once.

    function: as many float32 blocks, 1-D, of one length -> a float32 block of that length; what it
    gives for an element must depend on that element alone. tensors: of one shape, any floating
    dtype. out: contiguous, of that shape.
    """
    if out.device.type != "cpu":
        out.copy_(function(*(tensor.float().reshape(-1) for tensor in tensors)).view(out.shape))
        return
    flats = [tensor.reshape(-1) for tensor in tensors]
    target = out.view(-1)

    def work(start: int, stop: int) -> None:
        for position in range(start, stop, _BLOCK):
            part = slice(position, min(stop, position + _BLOCK))
            target[part].copy_(function(*(flat[part].float() for flat in flats)))

    over_ranges(work, out.numel(), unit=_BLOCK)
