"""Copies of the host's numbers to a device, without waiting for the device.

A plain copy to a GPU waits until the GPU has done all that it was asked to do before. Meanwhile
nothing more is asked of it, and afterwards it has nothing to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from evomerge.deferred import torch as _torch

if TYPE_CHECKING:
    import torch


def upload(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """An array as a tensor on the device; on the CPU it shares the array's memory."""
    tensor = _torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    # torch frees the pinned memory only after the GPU has read it.
    return tensor.pin_memory().to(device, non_blocking=True)
