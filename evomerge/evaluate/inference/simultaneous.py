"""Differences between models on the same items, with intervals that hold for all of them at once.

The best of several differences is also the luckiest one. So their intervals are widened until all
of them hold together. The null distribution comes from models that are swapped item by item: every
paired difference keeps its size and gets a random sign, the same in the whole family. For one
difference of right-or-wrong items this is exact, however few they are, while a bootstrap claims too
much. Under the null, each difference is divided by its own spread, and the largest one gives the
critical value (single-step maxT, Westfall & Young 1993; so divided, the family is balanced, Romano
& Wolf 2005). An interval also has a least width. Even if all n items agree, some share of items may
differ that n items are too few to show.
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
"""Sums of equal scores in another order may differ by this; a smaller difference counts as 0."""

_WIDER = 1.0 + 1e-9
"""So that rounding never puts a difference at the critical value beyond it."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One model's combined score minus another's, among a family of such differences.

    interval: all intervals of the family hold together with its confidence. p: two-sided p-value of
    no difference, adjusted for the family. It is at most 1 - confidence exactly if the interval
    leaves out 0.
    """

    interval: Interval
    p: float

    @property
    def settled(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval.low > 0.0 or self.interval.high < 0.0

    def items_to_settle(self, items: int) -> int | None:
        """How many items like these `items`, in the same shares by task, would leave out 0.

        The interval narrows with the square root of the number of items. With the number given here
        it would just reach 0 if the difference stayed the same, so about every second test would
        settle it. None if the difference is 0: no number of items settles that.
        """
        if self.interval.value == 0.0:
            return None
        half = (self.interval.high - self.interval.low) / 2.0
        return math.ceil(items * (half / self.interval.value) ** 2)

    def to_json(self) -> dict[str, Any]:
        """Plain values that `read_difference` reads back equal."""
        return asdict(self)


def read_difference(entry: Mapping[str, Any]) -> Difference:
    """A difference that was stored as JSON."""
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

    The confidence is exact only in the limit of many items if items are not right or wrong, or if
    models differ in single tasks but are equal in total. With fewer items it is higher than stated,
    because spreads are taken about 0 and not about the observed difference. The intervals are made
    to judge 0: if very few items differ, they may be too narrow for other values, as a bootstrap's
    are.
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
    # The observed data count as one resample (Phipson & Smyth 2010), so no p-value is 0.
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
    """A difference in the combined score that the items may have missed: (pairs,).

    If n items of a task all agree, up to a share 1 - (1 - confidence)^(1/n) of all items may still
    differ, by the metric's whole range. The task with the largest effect counts.
    """
    most = np.zeros(len(pairs))
    for column, leaf in enumerate(objective.leaves):
        task, key = leaf.task, leaf.key
        count = len(pairs[0][0][task].ids)
        share = 1.0 - (1.0 - confidence) ** (1.0 / count)
        values = np.array([[model[task].metrics[key] for model in pair] for pair in pairs])
        ends = value_ends(values.reshape(len(pairs), -1).T)  # (2, pairs)
        moved = np.zeros(middle.shape)
        moved[:, column] = share * (ends[1] - ends[0])
        most = np.maximum(most, np.abs(_differences(objective, middle, moved)))
    return most


def _widen(
    values: NDArray[np.float64], half: NDArray[np.float64], least: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Half widths of at least `least`; an interval that left out 0 still does so."""
    settled = np.abs(values) > half
    return np.maximum(half, np.where(settled, np.minimum(least, np.abs(values) / _WIDER), least))


def _flip(
    objective: Objective, pairs: Sequence[tuple[Scores, Scores]], *, seed: int, resamples: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The mean of both models, their difference, and differences under random signs.

    (pairs, leaves), (pairs, leaves), (resamples, pairs, leaves).
    """
    leaves = objective.leaves
    middle, observed = np.empty((2, len(pairs), len(leaves)))
    flipped = np.empty((resamples, len(pairs), len(leaves)))
    for ordinal, task in enumerate(sorted({leaf.task for leaf in leaves})):
        columns = [i for i, leaf in enumerate(leaves) if leaf.task == task]
        keys = [leaves[column].key for column in columns]
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
    """Difference of combined scores, halfway around `middle`: (..., leaves) to (...)."""
    above, below = (objective.fold(middle + sign * difference / 2.0) for sign in (1.0, -1.0))
    return objective.combine(above) - objective.combine(below)
