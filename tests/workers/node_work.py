"""Work for a process on a node; it needs no large library."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from evomerge.errors import TaskError


class Work:
    """Methods as a process on a node has them."""

    def count(self, tell: Callable[[int], object], most: int) -> list[str]:
        for number in range(most):
            tell(number)
        return [os.getcwd(), os.environ["RAY_AUTH_MODE"]]

    def refuse(self, tell: Callable[[Any], object]) -> None:
        raise TaskError("task sums: no such task; check the name")

    def fail(self, tell: Callable[[Any], object]) -> None:
        raise LookupError("no\nsuch word")

    def run_short(self, tell: Callable[[Any], object]) -> None:
        raise MemoryError("no room")

    def die(self, tell: Callable[[Any], object]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def block(self, count: int) -> bytes:
        return bytes(count)
