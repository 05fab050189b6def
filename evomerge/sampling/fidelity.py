"""How many items a generation is scored on, from how noisy the last ones were.

Early candidates differ much and few items tell them apart; as the search closes in they differ
less than the noise of a few items. The measure is the reliability of a generation's scores: the
variance of true differences over that of measured ones. It does not know items or candidates.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

RELIABILITY = 0.35
"""Share of the variance of scores that is to be signal. Evolution averages over generations, so it
wants more of them rather than surer ones."""

MEMORY = 0.9
"""Weight of what was known before a generation's own variances, after the first ten: those count
alike. The signal is a small difference of two variances, so it takes many generations to see."""

RANGE = 4.0
"""A generation takes between a RANGE-th and RANGE times the items that the job names."""


class Fidelity:
    """Items of the next generation.

    start: items that the job names, of which half are taken until something is known. least, most:
    bounds.
    """

    def __init__(self, start: int, *, least: int, most: int) -> None:
        self._least = max(least, math.ceil(start / RANGE))
        self._most = max(self._least, min(most, int(start * RANGE)))
        self._start = start
        self._generations = 0
        self._signal = 0.0
        self._noise = 0.0  # variance of a difference from the generation's mean, of one item

    def learn(self, resampled: NDArray[np.float64], items: int) -> None:
        """What a generation's first block of `items` said.

        resampled: (resamples, n) fitness of its candidates, paired, as in racing.
        """
        if resampled.shape[1] < 2 or not np.isfinite(resampled).all():
            return
        centred = resampled - resampled.mean(axis=1, keepdims=True)
        free = resampled.shape[1] / (resampled.shape[1] - 1)
        noise = float(centred.var(axis=0).mean()) * free
        seen = float(np.square(centred.mean(axis=0)).mean()) * free
        signal = seen - noise  # below 0 by chance; cut there it would seem larger than it is
        self._generations += 1
        new = max(1.0 - MEMORY, 1.0 / self._generations)
        self._signal = (1.0 - new) * self._signal + new * signal
        self._noise = (1.0 - new) * self._noise + new * noise * items

    def items(self, *, affordable: float = math.inf) -> int:
        """How many the next generation is scored on, at most `affordable`, at least the least."""
        if self._generations == 0:
            wanted = self._start / 2
        elif self._signal <= 0.0:
            wanted = float(self._most)
        else:
            wanted = RELIABILITY / (1.0 - RELIABILITY) * self._noise / self._signal
        return max(self._least, int(min(wanted, self._most, affordable)))
