"""Where sources' tensors are while they are merged: mapped files, or copies that stay on a device.

Nothing here knows what is done with a tensor.
"""

from __future__ import annotations

import torch

_SHARE = 0.4
"""Of a device's memory that is free when merging begins; the rest is for activations and caches."""


class Residence:
    """Tensors of sources on one device.

    What fits stays there for the next candidate; the rest is copied over each time. What came first
    stays, for every candidate asks for the same tensors in the same order. On the CPU tensors are
    the mapped files themselves.
    """

    def __init__(self, device: torch.device, *, limit_bytes: int | None = None) -> None:
        """limit_bytes: what may stay; None takes a share of what is free at the first tensor."""
        self.device = device
        self._left_bytes = limit_bytes
        self._kept: dict[tuple[str, str], torch.Tensor] = {}

    def place(self, reference: str, name: str, stored: torch.Tensor) -> torch.Tensor:
        """The tensor `name` of a model on the device; never to be written to."""
        if self.device == stored.device:
            return stored
        kept = self._kept.get((reference, name))
        if kept is not None:
            return kept
        if self._left_bytes is None:
            self._left_bytes = _free_share(self.device)
        copy = stored.to(self.device)
        if copy.nbytes <= self._left_bytes:
            self._left_bytes -= copy.nbytes
            self._kept[reference, name] = copy
        return copy


def _free_share(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return int(_SHARE * free_bytes)
