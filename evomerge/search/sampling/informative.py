"""Fresh draws that prefer the items on which recent candidates disagree.

An item that every candidate answers alike says nothing about their order. Items are drawn with
probability proportional to the expected standard deviation of their outcome. They are weighted by
the inverse of the probability that they were drawn, so the estimate is unbiased over draws whatever
a candidate does (Horvitz & Thompson 1952). The answers of recent candidates are a control variate
(the difference estimator of Särndal, Swensson & Wretman 1992, section 6.3):

    estimate = mean of ŷ over all N items + sum over drawn items of (y - ŷ) / (N π)

The order of candidates on one draw does not depend on the estimator: ŷ cancels in the difference of
two candidates, and the Hájek ratio divides both by the same number. It depends on π. The variance
of a difference d = y - y' is about the sum of d² (1 - π) / π / N²; with outcomes that disagree with
probability 2 p (1 - p) it is least for π proportional to sqrt(p (1 - p)) (Neyman 1934). ŷ improves
the level of scores, which matters for comparisons with thresholds and between generations, because
each generation has its own draw.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln

from evomerge.search.sampling.responses import Responses, WeightedItems, are_binary, check_responses

PRIOR_STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""How many outcomes the prior may count as; the likeliest is taken."""

EVEN_SHARE = 0.2
"""Share of the drawing probability that is spread evenly over all items. So no weight is more than
1 / EVEN_SHARE times that of a plain draw, and items that all agreed on are still drawn at times."""

_UNITS = 2**24
"""A draw uses whole sizes up to this number, so that it is the same on every machine."""


def predict_items(responses: Responses) -> NDArray[np.float64]:
    """Expected outcome (items,) of a further candidate on each item.

    The mean of the item's outcomes, shrunk to the mean of all by as much as the outcomes suggest.
    """
    check_responses(responses)
    times, totals, mean = _counts(responses)
    strength = _prior_strength(responses)
    return (totals + strength * mean) / (times + strength)


def disagreement(responses: Responses) -> NDArray[np.float64]:
    """Expected variance (items,) of the outcome of a further candidate on each item.

    Binary outcomes: the variance of a Bernoulli variable; its rate has the Beta posterior with the
    mean of `predict_items`. Others: the variance of the item's outcomes, shrunk to the mean of
    variances.
    """
    check_responses(responses)
    strength = _prior_strength(responses)
    if are_binary(responses):
        rate = predict_items(responses)
        total = _counts(responses)[0] + strength
        return np.asarray(rate * (1.0 - rate) * total / (total + 1.0))
    known = ~np.isnan(responses)
    times, totals, mean = _counts(responses)
    centre = np.where(times > 0, totals / np.maximum(times, 1.0), mean)
    squares = np.where(known, (np.where(known, responses, 0.0) - centre) ** 2, 0.0).sum(axis=0)
    pooled = squares.sum() / max(1.0, (times - 1.0)[times > 0].sum())
    return np.asarray((squares + strength * pooled) / (np.maximum(times - 1.0, 0.0) + strength))


def draw_probabilities(variances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability (items,) of each item in one pick, of expected variances (items,); sums to 1."""
    deviations = np.sqrt(variances)
    even = np.full(len(deviations), 1.0 / len(deviations))
    total = math.fsum(deviations.tolist())  # rounded alike on every machine
    if total == 0.0:
        return even
    return np.asarray((1.0 - EVEN_SHARE) * deviations / total + EVEN_SHARE * even)


def draw_weighted(
    probabilities: NDArray[np.float64], count: int, bits: np.random.PCG64
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """`count` different items, and the probability (count,) with which each of them is drawn.

    probabilities: (items,) of one pick, positive. Systematic sampling of fixed size (Madow 1949) of
    shuffled items. Items with a share of a whole pick or more are always drawn. bits: only its raw
    output is used, so the same state gives the same items on every machine.
    Raises ValueError where `count` items cannot be drawn.
    """
    sizes, certain = _drawing_sizes(probabilities, count)
    order = np.argsort(bits.random_raw(len(sizes)), kind="stable")
    picks = count - int(certain.sum())
    total = int(sizes[~certain].sum())
    start = int(bits.random_raw()) * total >> 64  # in [0, total), as every machine computes it
    open_items = order[~certain[order]]
    ends = np.cumsum(sizes[open_items]) * picks  # item j has the interval that ends at ends[j]
    points = start + np.arange(picks, dtype=np.int64) * total
    drawn = open_items[np.searchsorted(ends, points, side="right")]
    items = np.sort(np.concatenate([np.flatnonzero(certain), drawn])).astype(np.int64)
    return items, inclusion_probabilities(probabilities, count)[items]


def inclusion_probabilities(probabilities: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Probability (items,) that `draw_weighted` draws each item; they sum to `count`."""
    sizes, certain = _drawing_sizes(probabilities, count)
    picks = count - int(certain.sum())
    return np.where(certain, 1.0, sizes * picks / max(1, int(sizes[~certain].sum())))


def _drawing_sizes(
    probabilities: NDArray[np.float64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Sizes (items,) in whole units, and which items (items,) are drawn for certain."""
    number = len(probabilities)
    if not 1 <= count <= number:
        raise ValueError(f"count: {count} of {number} items cannot be drawn")
    if not (np.isfinite(probabilities).all() and (probabilities > 0.0).all()):
        raise ValueError("probabilities: not all are positive and finite")
    sizes = np.maximum(1, np.rint(probabilities / probabilities.max() * _UNITS)).astype(np.int64)
    certain = np.zeros(number, dtype=bool)
    while True:  # items that are certain leave more picks per size to the others
        picks = count - int(certain.sum())
        whole = ~certain & (sizes * picks >= int(sizes[~certain].sum()))
        if picks == 0 or not whole.any():
            return sizes, certain
        certain |= whole


def draw_informative(responses: Responses, count: int, bits: np.random.PCG64) -> WeightedItems:
    """A fresh draw of `count` items by what recent candidates answered, with its estimate.

    responses: (recent candidates, items), NaN where not scored.
    """
    predicted = predict_items(responses)
    probabilities = draw_probabilities(disagreement(responses))
    items, inclusion = draw_weighted(probabilities, count, bits)
    number = len(predicted)
    weights = 1.0 / (number * inclusion)
    return WeightedItems(
        items=items,
        weights=weights,
        offset=float(predicted.mean() - (weights * predicted[items]).sum()),
    )


def _counts(
    responses: Responses,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Outcomes per item, their sums, and the mean of all."""
    known = ~np.isnan(responses)
    times = known.sum(axis=0).astype(np.float64)
    totals = np.where(known, responses, 0.0).sum(axis=0)
    return times, totals, float(totals.sum() / times.sum())


def _prior_strength(responses: Responses) -> float:
    """Outcomes that the prior counts as: the likeliest of PRIOR_STRENGTHS (beta-binomial), or 1."""
    if not are_binary(responses):
        return 1.0
    times, totals, mean = _counts(responses)
    if not 0.0 < mean < 1.0:
        return 1.0
    likelihoods = [
        float(
            (
                betaln(totals + s * mean, times - totals + s * (1.0 - mean))
                - betaln(s * mean, s * (1.0 - mean))
            ).sum()
        )
        for s in PRIOR_STRENGTHS
    ]
    return PRIOR_STRENGTHS[int(np.argmax(likelihoods))]
