"""Elementwise functions over blocks that stay in the cache, on all threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from evomerge.merge.kernels.threads import over_ranges

_BLOCK = 2**16  # elements; large enough to hide Python, small enough for the second-level cache


def blockwise(
    function: Callable[..., torch.Tensor], tensors: Sequence[torch.Tensor], out: torch.Tensor
) -> None:
    """Write function(blocks of the tensors) into `out`, block by block, rounded once.

    function: as many float32 blocks, 1-D, of one length -> a float32 block of that length; what it
    gives for an element must depend on that element alone. tensors: of one shape, any floating
    dtype. out: contiguous, of that shape.
    """
    if out.device.type != "cpu":
        out.copy_(function(*(tensor.float().reshape(-1) for tensor in tensors)).view(out.shape))
        return
    flats = [tensor.reshape(-1) for tensor in tensors]
    target = out.view(-1)

    def work(start: int, stop: int) -> None:
        for position in range(start, stop, _BLOCK):
            part = slice(position, min(stop, position + _BLOCK))
            target[part].copy_(function(*(flat[part].float() for flat in flats)))

    over_ranges(work, out.numel(), unit=_BLOCK)
