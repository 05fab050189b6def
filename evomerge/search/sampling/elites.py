"""The best candidates so far, with what every draw said of them.

The highest score of a search is mostly luck: of many noisy scores the best is the luckiest. So a
score is drawn to the mean of its generation as far as it is noise (James & Stein 1961), and who
seems best is scored again with the next generation, until its interval tells. It does not know
genomes, recipes or items.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from evomerge.evaluate import CandidateKey

LEAST_SIGNAL = 0.1
"""Variance of true differences that is thought possible, at least, relative to that of noise."""

_Z = 1.959963984540054  # of a two-sided 95% interval


@dataclass(frozen=True, kw_only=True)
class Elite:
    """What is believed of a candidate: its fitness, lower is better, and the standard error.

    items: on how many it was scored, in all the generations that it stayed for.
    """

    key: CandidateKey
    fitness: float
    error: float
    items: int

    @property
    def interval(self) -> tuple[float, float]:
        """Where its fitness is believed to be, with 95%."""
        return self.fitness - _Z * self.error, self.fitness + _Z * self.error


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One score of a candidate: fitness, its variance by resampling, and the items it took."""

    fitness: float
    variance: float
    items: int


class Elites:
    """Beliefs about every candidate scored so far."""

    def __init__(self) -> None:
        self._known: dict[CandidateKey, Elite] = {}

    def learn(self, new: Mapping[CandidateKey, Measured]) -> None:
        """Scores of one generation's new candidates, which are the prior of one another."""
        if not new:
            return
        values = [one.fitness for one in new.values()]
        mean = math.fsum(values) / len(values)
        noise = math.fsum(one.variance for one in new.values()) / len(new)
        spread = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
        # Noise may hide a signal altogether; who is believed to be like all others stays so.
        signal = max(LEAST_SIGNAL * noise, spread - noise)
        for key, one in new.items():
            prior = Elite(key=key, fitness=mean, error=math.sqrt(signal), items=0)
            self._known[key] = _updated(prior, one)

    def learn_again(self, key: CandidateKey, one: Measured) -> None:
        """A score of a candidate that stayed, on other items."""
        self._known[key] = _updated(self._known[key], one)

    def best(self, count: int) -> tuple[Elite, ...]:
        """The `count` best believed, the best first; equals in the order of their keys."""
        ranked = sorted(self._known.values(), key=lambda elite: (elite.fitness, elite.key))
        return tuple(ranked[:count])


def _updated(before: Elite, one: Measured) -> Elite:
    """Two normal beliefs as one; a variance of 0 is certainty."""
    variance = before.error**2
    total = variance + one.variance
    share = 0.5 if total == 0.0 else variance / total  # weight of the new score
    return Elite(
        key=before.key,
        fitness=(1.0 - share) * before.fitness + share * one.fitness,
        error=math.sqrt(share * one.variance) if total > 0.0 else 0.0,
        items=before.items + one.items,
    )
