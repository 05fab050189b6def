"""The start of an optimiser: its first population, and its switches, genes with two values."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

# A search over switches begins around its start, a few flips away from it.
#
# A switch is a gene with two values; it is on above 1/2.


FLIPS = 2.0
"""Switches of a first candidate that differ from the start, on average, however many there are.

More flips would teach more, if models survived them: benchmarks/RESULTS.md."""


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
    """The start, (n,), its switches placed so that a step of `sigma` flips each at `flip_rate`.

    Where flips cannot be so rare inside the box (sigma above 1/5 or so, many switches), a switch
    begins at 0 or 1.
    """
    placed = start.copy()
    if binary.any():
        distance = sigma * NormalDist().inv_cdf(1.0 - flip_rate(int(binary.sum())))
        side = np.where(start[binary] > 0.5, distance, -distance)
        placed[binary] = np.clip(0.5 + side, 0.0, 1.0)
    return placed


STEP_BETWEEN = 0.25
"""Step around a point between two starts, as a share of sigma: the line itself is a good guess."""


def first_population(
    starts: NDArray[np.float64],
    *,
    population: int,
    sigma: float,
    binary: NDArray[np.bool_],
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """The starts themselves, then genomes on the lines between them, (population, n) in [0, 1].

    starts: (k, n), the most important first. Models between two fine-tuned ones make most of the
    front already (rewarded soups: Rame et al. 2023). A gene is normal around a point on a line,
    with standard deviation `STEP_BETWEEN` sigma, or sigma where there is only one start, and
    reflected at the bounds. A switch has the value of one of the two starts, flipped as rarely as
    `chances` says.
    """
    first, second = (generator.integers(len(starts), size=population) for _ in range(2))
    share = generator.random((population, 1))
    places = share * starts[first] + (1.0 - share) * starts[second]
    step = sigma if len(starts) == 1 else sigma * STEP_BETWEEN
    moved = places + step * generator.standard_normal(places.shape)
    genomes = 1.0 - np.abs(1.0 - np.abs(moved) % 2.0)
    from_first = generator.random(places.shape) < share
    rate = chances(np.ones(int(binary.sum())))
    switched = np.where(from_first, starts[first], starts[second])[:, binary] > 0.5
    kept = generator.random(switched.shape) < rate
    genomes[:, binary] = switched == kept
    exact = min(len(starts), population)
    genomes[:exact] = starts[:exact]
    genomes[:exact, binary] = starts[:exact, binary] > 0.5
    return genomes
