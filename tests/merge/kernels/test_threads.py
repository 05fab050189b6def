"""Threads that work on one tensor never outlive the call."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from evomerge.merge.kernels.threads import over_ranges

COUNT = 2**18


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_an_interrupt_waits_until_no_thread_uses_the_callers_memory() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(start: int, stop: int) -> None:
        if start == 0:
            begun.wait()
            raise KeyboardInterrupt
        begun.set()
        time.sleep(0.1)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        over_ranges(work, COUNT, unit=1)
    assert ended.is_set()


def test_an_error_in_another_thread_is_raised_here() -> None:
    def work(start: int, stop: int) -> None:
        if start:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        over_ranges(work, COUNT, unit=1)
