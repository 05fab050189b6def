"""Estimates of a model's mean over all items from its ability and what it did on a few items.

Three ways: p-IRT takes the few outcomes as they are and predicts the rest; gp-IRT blends that with
the weighted anchors (both Maia Polo et al. 2024, section 4); in mp-IRT the ability is a combination
of the parents' (Mencattini et al. 2025, MERGE3). It does not know which way is best here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.sampling.irt import ItemCurves, fit_item_curves
from evomerge.sampling.responses import Responses, whole_rows
from evomerge.sampling.weighted import WeightedItems

MOST_DIMENSIONS = 3
"""Of abilities where parents' are combined; few models do not tell more apart."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AbilityEstimate:
    """Items to score, and the estimate that item response theory makes of their outcomes.

    parents: rows of the fitted models whose abilities are combined, or None for a free ability.
    blend: share of the weighted anchors in the estimate, the rest being p-IRT (or mp-IRT).
    """

    curves: ItemCurves
    anchors: WeightedItems
    parents: NDArray[np.int64] | None
    blend: float

    @property
    def items(self) -> NDArray[np.int64]:
        """(k,) int64, sorted and unique."""
        return self.anchors.items

    def estimate(self, outcomes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Estimates (models,) of the mean over all items, of 0 or 1 outcomes (models, k)."""
        if self.parents is None:
            abilities = self.curves.estimate_abilities(outcomes, self.items)
        else:
            abilities = self.curves.combine_abilities(outcomes, self.items, self.parents)
        predicted = self.curves.predict(abilities)
        predicted[:, self.items] = outcomes
        theory = predicted.mean(axis=1)
        return np.asarray(self.blend * self.anchors.estimate(outcomes) + (1 - self.blend) * theory)


def measure_blend(responses: Responses, count: int, *, dimensions: int = 1) -> float:
    """gp-IRT's share of the anchors, b² / (b² + v / (4 count)), as tinyBenchmarks sets it.

    b: mean absolute error of the predicted mean over every other item, of every fifth of the models
    that were scored on all items, whose ability is estimated on the items between; fitted without
    them. v: mean variance of a model's outcomes, a quarter of which anchors are taken to leave.
    """
    left_out = whole_rows(responses)[::5]
    curves = fit_item_curves(np.delete(responses, left_out, axis=0), dimensions=dimensions)
    seen = np.arange(0, responses.shape[1], 2)
    unseen = np.arange(1, responses.shape[1], 2)
    outcomes = responses[left_out]
    predicted = curves.predict(curves.estimate_abilities(outcomes[:, seen], seen))[:, unseen]
    errors = predicted.mean(axis=1) - outcomes[:, unseen].mean(axis=1)
    bias = float(np.abs(errors).mean())
    variance = float(np.nanvar(responses, axis=1).mean())
    return bias**2 / (bias**2 + variance / (4 * count)) if bias > 0.0 else 0.0
