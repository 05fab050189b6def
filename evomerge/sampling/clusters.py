"""Clusters of items that models answer alike: weighted k-means, the same on every machine.

Distances are summed model by model and means item by item, never by a linear algebra library, so
the order of every addition is fixed. It does not know what the clusters are for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESTARTS = 3
ROUNDS = 25
"""Of Lloyd's algorithm at most; further ones move few items between near equal clusters."""


def cluster_items(
    points: NDArray[np.float64], count: int, bits: np.random.PCG64
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels (items,) of at most `count` clusters, and each item's squared distance to its centre.

    points: (items, models), the outcomes on each item. Labels run from 0 without gaps. The best of
    RESTARTS runs of Lloyd's algorithm started by k-means++ (Arthur & Vassilvitskii 2007); equal
    items are one point that weighs as many, so where they allow it the clusters are exact.
    """
    patterns, pattern_of, times = np.unique(points, axis=0, return_inverse=True, return_counts=True)
    pattern_of = pattern_of.reshape(-1)
    if len(patterns) <= count:
        return pattern_of.astype(np.int64), np.zeros(len(points))
    columns = np.ascontiguousarray(patterns.T)  # (models, patterns)
    weights = times.astype(np.float64)
    best_spread, best = np.inf, (np.zeros(0, dtype=np.int64), np.zeros(0))
    for _ in range(RESTARTS):
        labels, distances = _run(columns, weights, _first_centres(columns, weights, count, bits))
        spread = float(np.cumsum(weights * distances)[-1])  # cumsum adds in order
        if spread < best_spread:
            best_spread, best = spread, (labels, distances)
    labels = np.unique(best[0], return_inverse=True)[1].reshape(-1).astype(np.int64)
    return labels[pattern_of], best[1][pattern_of]


def _first_centres(
    columns: NDArray[np.float64], weights: NDArray[np.float64], count: int, bits: np.random.PCG64
) -> NDArray[np.float64]:
    """Centres (models, count): patterns, drawn by weighted squared distance to those drawn."""
    nearest = np.ones(columns.shape[1])
    chosen: list[int] = []
    for _ in range(count):
        ends = np.cumsum(weights * nearest)
        point = (int(bits.random_raw()) >> 11) / 2**53 * ends[-1]
        place = int(np.searchsorted(ends, point, side="right"))
        chosen.append(min(place, len(ends) - 1))
        distance = _squared_distances(columns, columns[:, chosen[-1:]])[:, 0]
        nearest = distance if len(chosen) == 1 else np.minimum(nearest, distance)
    return columns[:, chosen]


def _run(
    columns: NDArray[np.float64], weights: NDArray[np.float64], centres: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Lloyd's rounds until no label changes; a cluster that empties keeps its centre."""
    count = centres.shape[1]
    labels = np.full(columns.shape[1], -1)
    for _ in range(ROUNDS):
        distances = _squared_distances(columns, centres)
        moved = distances.argmin(axis=1)
        if (moved == labels).all():
            break
        labels = moved
        totals = np.bincount(labels, weights=weights, minlength=count)
        sums = np.stack(
            [np.bincount(labels, weights=weights * c, minlength=count) for c in columns]
        )
        centres = np.where(totals > 0.0, sums / np.maximum(totals, 1.0), centres)
    distances = _squared_distances(columns, centres)
    labels = distances.argmin(axis=1)
    return labels.astype(np.int64), distances[np.arange(len(labels)), labels]


def _squared_distances(
    columns: NDArray[np.float64], centres: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(patterns, centres), added over models in their order."""
    total = np.zeros((columns.shape[1], centres.shape[1]))
    for outcomes, centre in zip(columns, centres, strict=True):
        total += (outcomes[:, None] - centre[None, :]) ** 2
    return total
