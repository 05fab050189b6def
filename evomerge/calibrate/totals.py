"""Sums of many tensors that grow where they are made, as far as memory there goes."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from evomerge.devices import free_share


class Totals:
    """Sums by name, zeros at first.

    into: what gets them at the end, and what is added to where the device has no room for more:
    float32 zeros on the CPU, such as pages of a file. On a GPU, sums that stay there are copied
    once and not after every text.
    """

    def __init__(self, into: Mapping[str, torch.Tensor], device: torch.device) -> None:
        self._into = into
        self._device = device
        self._there: dict[str, torch.Tensor] = {}
        self._left_bytes: int | None = None

    def add(self, name: str, addend: torch.Tensor) -> None:
        """Add a tensor of the device to a sum."""
        total = self.of(name)
        total.add_(addend.to(total.device))

    def of(self, name: str) -> torch.Tensor:
        """The sum, where it grows; it may be added to in place."""
        total = self._into[name]
        if self._device == total.device:
            return total
        if name not in self._there:
            if self._left_bytes is None:  # by now the model is there
                self._left_bytes = free_share(self._device)
            if total.nbytes > self._left_bytes:
                return total
            self._left_bytes -= total.nbytes
            self._there[name] = torch.zeros(total.shape, device=self._device)
        return self._there[name]

    def finish(self) -> None:
        """Copy the sums to `into`."""
        for name, total in self._there.items():
            self._into[name].copy_(total)
        self._there.clear()
