"""Sums over a whole tensor and order statistics, the same to the last bit on any thread count.

Terms are added in float64, in blocks of a fixed size and order, by numpy, which uses one thread;
torch splits a sum among its threads, so its last bits depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

_BLOCK = 2**16  # elements; small enough for the caches, large enough to hide Python


def dot_product(a: torch.Tensor, b: torch.Tensor) -> float:
    """Σ a·b of two float32 tensors of one shape, in float64."""
    return sum(
        float(np.add.reduce(np.multiply(x, y, dtype=np.float64)))
        for x, y in zip(_blocks(a), _blocks(b), strict=True)
    )


def absolute_sum(a: torch.Tensor) -> float:
    """Σ |a| of a float32 tensor, in float64."""
    return sum(float(np.add.reduce(np.abs(x), dtype=np.float64)) for x in _blocks(a))


def largest_mask(magnitudes: torch.Tensor, count: int) -> torch.Tensor:
    """1 where the `count` largest of `magnitudes` are, else 0; float32 of the same shape.

    count: in [1, n]. Of equal magnitudes at the threshold those with the lower index are taken.
    """
    flat = magnitudes.reshape(-1)
    place = flat.numel() - count
    ordered = np.partition(flat.numpy(), place)
    threshold = float(ordered[place])
    mask = torch.ge(flat, threshold, out=torch.empty_like(flat))
    surplus = int(np.count_nonzero(ordered[:place] == ordered[place]))
    if surplus > 0:
        mask[(flat == threshold).nonzero().reshape(-1)[-surplus:]] = 0.0
    return mask.reshape(magnitudes.shape)


def _blocks(a: torch.Tensor) -> Iterator[np.ndarray[tuple[int], np.dtype[np.float32]]]:
    flat = a.reshape(-1).numpy()
    return (flat[start : start + _BLOCK] for start in range(0, flat.size, _BLOCK))
