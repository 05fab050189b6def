"""The matrix of models' outcomes on items, from which items are chosen.

A row is a model and a column is an item; NaN where the model was not scored on the item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluate import TaskItems

Responses = NDArray[np.float64]
"""(models, items) float64 outcomes of one metric, NaN where not scored."""


def gather_responses(scored: Sequence[TaskItems], metric: str, *, pool: Sequence[int]) -> Responses:
    """Responses (models, items) of `scored` to the items of `pool`, in its order.

    Items outside `pool` are left out; items of `pool` that a model was not scored on are NaN.
    """
    column = {item: place for place, item in enumerate(pool)}
    responses = np.full((len(scored), len(pool)), np.nan)
    for row, items in enumerate(scored):
        for item, value in zip(items.ids, items.metrics[metric], strict=True):
            if item in column:
                responses[row, column[item]] = value
    return responses


def check_responses(responses: Responses, *, models: int = 1) -> None:
    """Raise ValueError unless `responses` is (models, items) with finite outcomes, NaN else.

    models: least number of models that must have an outcome.
    """
    if responses.ndim != 2 or responses.shape[1] == 0:
        raise ValueError(f"responses: shape {responses.shape}; give (models, items)")
    scored = int((~np.isnan(responses)).any(axis=1).sum())
    if scored < models:
        raise ValueError(f"responses: {scored} models with outcomes; give at least {models}")
    if np.isinf(responses).any():
        raise ValueError("responses: infinite outcomes; give finite ones, NaN where not scored")


def are_binary(responses: Responses) -> bool:
    """Whether every outcome is 0 or 1."""
    return bool(np.isin(responses[~np.isnan(responses)], (0.0, 1.0)).all())


def whole_rows(responses: Responses) -> NDArray[np.intp]:
    """The models (rows) that were scored on every item."""
    return np.flatnonzero(~np.isnan(responses).any(axis=1))


def fill_missing(responses: Responses) -> Responses:
    """Responses with every NaN filled by a guess from its model's and its item's outcomes.

    The guess is the model's mean plus the item's mean, minus the mean of all, kept within the
    observed range. A model or an item without outcomes has the mean of all.
    """
    known = ~np.isnan(responses)
    values = np.where(known, responses, 0.0)
    overall = values.sum() / known.sum()
    of_model = _means(values.sum(axis=1), known.sum(axis=1), overall)  # (models,)
    of_item = _means(values.sum(axis=0), known.sum(axis=0), overall)  # (items,)
    guess = of_model[:, None] + of_item[None, :] - overall
    low, high = np.nanmin(responses), np.nanmax(responses)
    return np.where(known, responses, np.clip(guess, low, high))


def _means(
    totals: NDArray[np.float64], times: NDArray[np.int64], otherwise: float
) -> NDArray[np.float64]:
    return np.where(times > 0, totals / np.maximum(times, 1), otherwise)


# A few items that represent all: an estimate of the mean over all items, linear in outcomes.
#
# Anchors and weighted draws both have this form.


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
