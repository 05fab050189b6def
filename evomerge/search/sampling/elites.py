"""The best candidates so far, by their scores on all draws.

The highest score of a search is mostly luck: of many noisy scores the best is the luckiest. So a
score is shrunk towards the mean of its generation as far as it is noise (James & Stein 1961), and
the candidates that seem best are scored again with the next generation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from evomerge.evaluate import CandidateKey

LEAST_SIGNAL = 0.1
"""Smallest variance of true differences that is assumed, relative to the variance of noise."""

_Z = 1.959963984540054  # of a two-sided 95% interval


@dataclass(frozen=True, kw_only=True)
class Elite:
    """The estimate of a candidate: its fitness, lower is better, and the standard error.

    items: how many it was scored on, in all generations that it took part in.
    """

    key: CandidateKey
    fitness: float
    error: float
    items: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of its fitness."""
        return self.fitness - _Z * self.error, self.fitness + _Z * self.error


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One score of a candidate: fitness, its variance by resampling, and the items it took."""

    fitness: float
    variance: float
    items: int


class Elites:
    """Estimates of every candidate scored so far."""

    def __init__(self) -> None:
        self._known: dict[CandidateKey, Elite] = {}

    def learn(self, new: Mapping[CandidateKey, Measured]) -> None:
        """Learn the scores of a generation's new candidates; all of them form the prior of each."""
        if not new:
            return
        values = [measured.fitness for measured in new.values()]
        mean = math.fsum(values) / len(values)
        noise = math.fsum(measured.variance for measured in new.values()) / len(new)
        spread = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
        # Noise may hide the whole signal; with a signal of 0 later scores could change nothing.
        signal = max(LEAST_SIGNAL * noise, spread - noise)
        for key, measured in new.items():
            prior = Elite(key=key, fitness=mean, error=math.sqrt(signal), items=0)
            self._known[key] = _updated(prior, measured)

    def learn_again(self, key: CandidateKey, measured: Measured) -> None:
        """Learn another score of a known candidate, on other items."""
        self._known[key] = _updated(self._known[key], measured)

    def best(self, count: int) -> tuple[Elite, ...]:
        """The `count` best candidates, the best first; equals in the order of their keys."""
        ranked = sorted(self._known.values(), key=lambda elite: (elite.fitness, elite.key))
        return tuple(ranked[:count])


def _updated(before: Elite, measured: Measured) -> Elite:
    """Combine an estimate with a new score, both normal; a variance of 0 is certainty."""
    variance = before.error**2
    total = variance + measured.variance
    share = 0.5 if total == 0.0 else variance / total  # weight of the new score
    return Elite(
        key=before.key,
        fitness=(1.0 - share) * before.fitness + share * measured.fitness,
        error=math.sqrt(share * measured.variance) if total > 0.0 else 0.0,
        items=before.items + measured.items,
    )
