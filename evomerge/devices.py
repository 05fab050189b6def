"""What the host gives a device: numbers, without waiting for it, and tensors that fit.

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


_SHARE = 0.4
"""The share of a device's free memory that tensors may take which are kept only to save time;
activations and caches need the rest."""


def free_share(device: torch.device) -> int:
    """How many bytes such tensors may take on a device; 0 where its memory is unknown."""
    if device.type != "cuda":
        return 0
    free_bytes, _ = _torch.cuda.mem_get_info(device)
    return int(_SHARE * free_bytes)
