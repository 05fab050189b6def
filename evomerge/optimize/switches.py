"""Where a search over switches begins: around its start, a few flips away from it.

A switch is a gene with two values, on above 1/2. Nothing here knows an optimiser.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

FLIPS = 2.0
"""Switches of a first candidate that differ from the start, on average, however many there are.

More would teach more where models survive them: benchmarks/RESULTS.md."""


def flip_rate(count: int) -> float:
    """Probability that a first candidate flips a switch, of `count` switches."""
    return min(0.5, FLIPS / count)


def chances(start: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of on for each switch of a first candidate, (k,); start: (k,) in [0, 1]."""
    rate = flip_rate(start.size) if start.size else 0.5
    return np.where(start > 0.5, 1.0 - rate, rate)


def place(
    start: NDArray[np.float64], binary: NDArray[np.bool_], sigma: float
) -> NDArray[np.float64]:
    """The start with its switches where a normal step of `sigma` flips each at `flip_rate`, (n,).

    A step that cannot be that rare inside the box (sigma above 1/5 or so, many switches) begins at
    0 or 1.
    """
    placed = start.copy()
    if binary.any():
        distance = sigma * NormalDist().inv_cdf(1.0 - flip_rate(int(binary.sum())))
        side = np.where(start[binary] > 0.5, distance, -distance)
        placed[binary] = np.clip(0.5 + side, 0.0, 1.0)
    return placed
