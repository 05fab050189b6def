"""The machine and device that figures are measured on. For the scripts beside this file."""

from __future__ import annotations

import platform

import torch


def machine(device: str = "cpu") -> str:
    """What the figures were measured on, with the GPU's name where one was used."""
    what = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return what if device == "cpu" else f"{torch.cuda.get_device_name(device)}, {what}"


def wait(device: str) -> None:
    """Until the device has done what it was asked; the CPU always has."""
    if device != "cpu":
        torch.cuda.synchronize(device)
