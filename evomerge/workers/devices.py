"""The devices of this machine."""

from __future__ import annotations

import torch

from evomerge.errors import JobError


def choose_device(wanted: str, *, field: str = "compute.device") -> str:
    """The device a job's `compute.device` means on this machine. Raises JobError if it has none.

    field: how the message names it.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not is_usable(wanted):
        raise JobError(f"{field}: {wanted}: not usable here; write auto or cpu")
    return wanted


def is_usable(device: str) -> bool:
    """Whether torch can work on a device of this machine."""
    if device == "cpu":
        return True
    if not device.startswith("cuda") or not torch.cuda.is_available():
        return False
    return int(device.partition(":")[2] or 0) < torch.cuda.device_count()
