"""Decompositions and products of matrices that do not depend on the number of threads.

A library that solves on several threads adds up in another order than on one, and a search, its
workers and an export may have different numbers of threads. So each solves on one: slower, and the
same bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let the linear algebra inside run on one thread of this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
