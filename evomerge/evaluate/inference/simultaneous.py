"""Differences between models on the same items, as sure as a family of them at once may be.

The best of several differences is the luckiest of them, so their intervals are widened until all of
them hold together, whichever is looked at. The null distribution is that of models swapped item by
item: every paired difference keeps its size and takes a random sign, the same in the whole family,
which is exact for one difference of right-or-wrong items however few they are, where a bootstrap
claims too much. The largest of the differences in units of their own spread under it gives the
critical value (single-step maxT, Westfall & Young 1993; in those units the family is balanced,
Romano & Wolf 2005). However few items differ, an interval is at least as wide as what as many items
can rule out that all agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluate.inference.intervals import RESAMPLES, Interval, value_ends
from evomerge.evaluate.objective import Objective, Scores

_CHUNK_VALUES = 4_000_000
"""Numbers held at once while resampling: 32 MB."""

_ROUNDING = 1e-12
"""Equal scores may come to this through sums in another order; a difference of it is none."""

_WIDER = 1.0 + 1e-9
"""So that rounding never takes a difference at the critical value for one beyond it."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One model's combined score minus another's, among a family of such differences.

    interval: all of the family hold the truth together with its confidence. p: of no difference,
    two-sided, adjusted for the family; at most 1 - confidence exactly where the interval leaves
    out 0.
    """

    interval: Interval
    p: float

    @property
    def settled(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval.low > 0.0 or self.interval.high < 0.0

    def items_to_settle(self, items: int) -> int | None:
        """How many items like these `items`, in the same shares by task, would leave out 0.

        The interval narrows with the square root of the items; this is where it would reach from
        0, were the difference what it is here, so such a test settles it about every second time.
        None where the difference is 0, which no number of items settles.
        """
        if self.interval.value == 0.0:
            return None
        half = (self.interval.high - self.interval.low) / 2.0
        return math.ceil(items * (half / self.interval.value) ** 2)

    def to_json(self) -> dict[str, Any]:
        """Plain values that `read_difference` reads back equal."""
        return asdict(self)


def read_difference(entry: Mapping[str, Any]) -> Difference:
    """A difference kept as JSON."""
    return Difference(interval=Interval(**entry["interval"]), p=entry["p"])


def simultaneous_differences(
    objective: Objective,
    pairs: Sequence[tuple[Scores, Scores]],
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> list[Difference]:
    """First's combined score minus second's for every pair, all scored on the same items.

    Where models differ task by task and yet are equal in all, or items are no mere right or wrong,
    the level holds in the limit of many items, and before it on the careful side: spreads are
    taken about 0, not about the difference that was seen. The intervals are made to judge 0: where
    very few items differ they may be too narrow for other truths, as a bootstrap's are.
    """
    if not pairs:
        return []
    middle, observed, flipped = _flip(objective, pairs, seed=seed, resamples=resamples)
    values = _differences(objective, middle, observed)  # (pairs)
    values[np.abs(values) < _ROUNDING] = 0.0
    null = _differences(objective, middle, flipped)  # (resamples, pairs)
    spread = np.sqrt((null**2).mean(axis=0))
    unit = np.where(spread > 0.0, spread, 1.0)
    largest = np.sort((np.abs(null) / unit).max(axis=1))  # (resamples), ascending
    # What was seen counts as one resample (Phipson & Smyth 2010), so no p-value is 0.
    at_least = resamples - np.searchsorted(largest, np.abs(values) / unit / _WIDER)
    allowed = max(0, math.floor((1.0 - confidence) * (resamples + 1) + 1e-6) - 1)
    critical = largest[resamples - 1 - allowed] * _WIDER
    half = _widen(values, critical * spread, _unseen(objective, pairs, middle, confidence))
    return [
        Difference(
            interval=Interval(
                value=float(value),
                low=float(value - wide),
                high=float(value + wide),
                confidence=confidence,
            ),
            p=float((1 + count) / (resamples + 1)),
        )
        for value, wide, count in zip(values, half, at_least, strict=True)
    ]


def _unseen(
    objective: Objective,
    pairs: Sequence[tuple[Scores, Scores]],
    middle: NDArray[np.float64],
    confidence: float,
) -> NDArray[np.float64]:
    """What no item of one task shows and yet may be, in the combined score: (pairs,).

    Of n items that all agree, up to 1 - (1 - confidence)^(1/n) of all items may not, whatever that
    makes of the metric; the task where it makes most counts.
    """
    most = np.zeros(len(pairs))
    for column, term in enumerate(objective.terms):
        task, key = term.metric.task, term.metric.key
        count = len(pairs[0][0][task].ids)
        may = 1.0 - (1.0 - confidence) ** (1.0 / count)
        values = np.array([[model[task].metrics[key] for model in pair] for pair in pairs])
        ends = value_ends(values.reshape(len(pairs), -1).T)  # (2, pairs)
        moved = np.zeros(middle.shape)
        moved[:, column] = may * (ends[1] - ends[0])
        most = np.maximum(most, np.abs(_differences(objective, middle, moved)))
    return most


def _widen(
    values: NDArray[np.float64], half: NDArray[np.float64], least: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Half widths of at least `least`, none of which takes in a 0 that the test left out."""
    settled = np.abs(values) > half
    return np.maximum(half, np.where(settled, np.minimum(least, np.abs(values) / _WIDER), least))


def _flip(
    objective: Objective, pairs: Sequence[tuple[Scores, Scores]], *, seed: int, resamples: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Means halfway between the models, their differences, and those under random signs.

    (pairs, terms), (pairs, terms), (resamples, pairs, terms).
    """
    terms = objective.terms
    middle, observed = np.empty((2, len(pairs), len(terms)))
    flipped = np.empty((resamples, len(pairs), len(terms)))
    for ordinal, task in enumerate(sorted({term.metric.task for term in terms})):
        columns = [i for i, term in enumerate(terms) if term.metric.task == task]
        keys = [terms[column].metric.key for column in columns]
        ids = pairs[0][0][task].ids
        assert all(model[task].ids == ids for pair in pairs for model in pair), "items differ"
        values = np.array(  # (pairs, 2, metrics, items)
            [[[model[task].metrics[key] for key in keys] for model in pair] for pair in pairs]
        )
        difference = values[:, 0] - values[:, 1]
        middle[:, columns] = values.mean(axis=(1, 3))
        observed[:, columns] = difference.mean(axis=2)
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, ordinal))))
        flat = difference.reshape(-1, len(ids)).T  # (items, pairs x metrics)
        drawn = _flipped_means(flat, generator, resamples)
        flipped[:, :, columns] = drawn.reshape(resamples, len(pairs), len(columns))
    return middle, observed, flipped


def _flipped_means(
    values: NDArray[np.float64], generator: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """Means (resamples, columns) of rows of `values` (items, columns), each by a random sign."""
    count, columns = values.shape
    means = np.empty((resamples, columns))
    chunk = max(1, _CHUNK_VALUES // count)
    for start in range(0, resamples, chunk):
        stop = min(resamples, start + chunk)
        signs = 1.0 - 2.0 * generator.integers(0, 2, size=(stop - start, count), dtype=np.int8)
        means[start:stop] = signs @ values / count
    return means


def _differences(
    objective: Objective, middle: NDArray[np.float64], difference: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Combined scores of models that lie that far apart around `middle`: (..., terms) to (...)."""
    return objective.combine(middle + difference / 2.0) - objective.combine(middle - difference / 2)
