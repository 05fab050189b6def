"""The most that numbers of a job may be, and the names of devices.

What is larger is a slip of the hand; databases and arrays could not hold it.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

MOST = 10**9
"""Candidates, items of a candidate, requests of a batch: more than any search can use."""
MOST_ITEMS = 10**12
"""Items of a whole search."""
MOST_WORKERS = 10**4
MOST_GPUS = 1024
"""GPUs of one worker."""

_DEVICE = r"auto|cpu|cuda(:\d{1,3})?"


def below_most(value: int | str, most: int = MOST) -> int | str:
    """The number, or the word in its place. Raises ValueError above the most."""
    if isinstance(value, int) and value > most:
        raise ValueError(f"{value} is above {most}; give {most} or less")
    return value


def _a_device(name: str) -> str:
    if re.fullmatch(_DEVICE, name) is None:
        raise ValueError(f"{name or 'nothing'} is no device; write auto, cpu, cuda or cuda:1")
    return name


Device = Annotated[
    str,
    AfterValidator(_a_device),
    WithJsonSchema({"type": "string", "pattern": f"^({_DEVICE})$"}),
]
"""`auto`, `cpu`, `cuda`, or one GPU of several, as `cuda:1`."""
