"""Scores an answer, and fails its own process in the way that a file beside this one says."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

from datasets import Dataset

ONCE = Path(__file__).with_name("kill-once")
ALWAYS = Path(__file__).with_name("kill-always")
SHORT_ONCE = Path(__file__).with_name("short-once")
EXIT = Path(__file__).with_name("exit")


def load(**_metadata: object) -> dict[str, Dataset]:
    numbers = ("zero", "one", "two", "three", "four", "five", "six", "seven")
    items = [{"question": f"{a} plus {b} equals", "answer": a} for a in numbers for b in numbers]
    return {"test": Dataset.from_list(items)}


def score(document: dict[str, Any], results: list[str]) -> dict[str, float]:
    if ALWAYS.exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if EXIT.exists():
        raise SystemExit(0)
    with contextlib.suppress(FileNotFoundError):  # another worker may have taken it
        SHORT_ONCE.unlink()
        raise MemoryError("no room for a list")
    with contextlib.suppress(FileNotFoundError):
        ONCE.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"exact_match": float(results[0].strip() == document["answer"])}
