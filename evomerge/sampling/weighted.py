"""A few items that stand for all: an estimate of the mean over all items, linear in outcomes.

Anchors and weighted draws are both of this form. It does not know how the items were chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightedItems:
    """Items to score, and the estimate they give: sum of weight times outcome, plus the offset.

    items: (k,) int64, sorted and unique. weights: (k,) float64.
    """

    items: NDArray[np.int64]
    weights: NDArray[np.float64]
    offset: float

    def __post_init__(self) -> None:
        assert self.items.shape == self.weights.shape, "items and weights differ in number"
        assert (np.diff(self.items) > 0).all(), "items are not sorted and unique"

    def estimate(self, outcomes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Estimates (...) of the mean over all items, of outcomes (..., k) on `items`."""
        return np.asarray((outcomes * self.weights).sum(axis=-1) + self.offset)
