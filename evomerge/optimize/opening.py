"""The first population of a search that begins at several places.

Knows the unit box and its switches only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evomerge.optimize.switches import chances

STEP_BETWEEN = 0.25
"""Step around a place between two starts, as a share of sigma: the line itself is a good guess."""


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
    front already (rewarded soups: Rame et al. 2023). Around a place on a line a gene is normal,
    with standard deviation `STEP_BETWEEN` sigma, or sigma where there is one start alone, and
    reflected at the bounds; a switch is one of the two starts', flipped as rarely as
    `switches.chances` says.
    """
    one, other = (generator.integers(len(starts), size=population) for _ in range(2))
    share = generator.random((population, 1))
    places = share * starts[one] + (1.0 - share) * starts[other]
    step = sigma if len(starts) == 1 else sigma * STEP_BETWEEN
    moved = places + step * generator.standard_normal(places.shape)
    genomes = 1.0 - np.abs(1.0 - np.abs(moved) % 2.0)
    of_one = generator.random(places.shape) < share
    rate = chances(np.ones(int(binary.sum())))
    switched = np.where(of_one, starts[one], starts[other])[:, binary] > 0.5
    kept = generator.random(switched.shape) < rate
    genomes[:, binary] = switched == kept
    exact = min(len(starts), population)
    genomes[:exact] = starts[:exact]
    genomes[:exact, binary] = starts[:exact, binary] > 0.5
    return genomes
