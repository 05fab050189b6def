"""Anchors: a few fixed items that represent all, chosen by how models answered them.

Items that models answer alike form a cluster. The item nearest to its centre represents the
cluster, weighted by the cluster's share (Maia Polo et al. 2024, tinyBenchmarks, section 3). Items
on which all models agree need almost no scoring: their value goes into the offset. A few of them
are still scored, as an audit, because a new model may differ. How often one does is measured by
leaving each model out in turn; this sets how much the audit counts. Anchors that are kept for a
whole search favour a lucky winner: the candidate whose score they overstate most.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evomerge.search.sampling.responses import (
    Responses,
    WeightedItems,
    are_binary,
    check_responses,
    fill_missing,
)

# Clusters of items that models answer alike: weighted k-means, the same on every machine.
#
# Distances are summed model by model and means item by item, never by a linear algebra library,
# so the order of every addition is fixed.


RESTARTS = 3
ROUNDS = 25
"""Most rounds of Lloyd's algorithm; later ones move few items between almost equal clusters."""


def cluster_items(
    points: NDArray[np.float64], count: int, bits: np.random.PCG64
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels (items,) of at most `count` clusters, and each item's squared distance to its centre.

    points: (items, models), the outcomes on each item. Labels run from 0 without gaps. The best of
    RESTARTS runs of Lloyd's algorithm started by k-means++ (Arthur & Vassilvitskii 2007). Equal
    items are one point with their number as its weight. So the clusters are exact where there are
    at most `count` different points.
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
    """Centres (models, count): patterns, drawn by weighted squared distance to earlier ones."""
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


AUDIT_SHARE = 0.1
"""Share of the scored items spent on those that all models agree on."""


def choose_anchors(responses: Responses, count: int, *, seed: int) -> WeightedItems:
    """`count` items with weights and an offset whose sum estimates the mean over all items.

    responses: (models, items) of at least two models, NaN where not scored. Items that no model was
    scored on are assumed to be like the others; they become anchors only if `count` is more than
    the number of the others. The same seed gives the same items on every machine. Raises ValueError
    for an impossible count or matrix.
    """
    check_responses(responses, models=2)
    number = responses.shape[1]
    if not 1 <= count <= number:
        raise ValueError(f"count: {count} anchors of {number} items; give 1 to {number}")
    responses = _well_scored_rows(responses)
    bits = np.random.PCG64(np.random.SeedSequence((seed, 0x616E63686F72)))
    shuffled = np.argsort(bits.random_raw(number), kind="stable")  # which of equal items is taken
    scored = _scored_items(responses)
    if count > len(scored):
        others = shuffled[~np.isin(shuffled, scored)][: count - len(scored)]
        return WeightedItems(
            items=np.sort(np.concatenate([scored, others])),
            weights=np.full(count, 1.0 / count),
            offset=0.0,
        )
    places = np.argsort(np.argsort(shuffled)[scored])  # the same shuffle, of the scored items alone
    items, weights, offset = _choose(responses[:, scored], count, places, bits)
    return WeightedItems(items=scored[items], weights=weights, offset=offset)


def _choose(
    responses: Responses, count: int, shuffled: NDArray[np.int64], bits: np.random.PCG64
) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
    """Items (count,), their weights (count,) and the offset; each item must have an outcome."""
    number = responses.shape[1]
    agreed = _agreed_groups(responses)
    together = np.concatenate([*agreed, np.zeros(0, dtype=np.int64)])
    open_items = np.setdiff1d(np.arange(number), together)
    audits = _share_audits(agreed, count, open_items=len(open_items))
    weight = np.zeros(number)
    is_chosen = np.zeros(number, dtype=bool)
    offset = 0.0
    picks = count - sum(audits)
    if picks > 0:
        items, shares = _nearest_items(fill_missing(responses), open_items, picks, shuffled, bits)
        is_chosen[items] = True
        weight[items] = shares / number
    for group, audit in zip(agreed, audits, strict=True):
        drawn = shuffled[np.isin(shuffled, group)][:audit]
        values = np.nanmax(responses[:, group], axis=0)  # the value all models have
        belief, shift = _audit_belief(responses, group, audit)
        share = len(group) / number
        is_chosen[drawn] = True
        weight[drawn] = belief * share / max(1, audit)
        offset += share * (float(values.mean()) + (1.0 - belief) * shift)
        offset -= float((weight[drawn] * np.nanmax(responses[:, drawn], axis=0)).sum())
    chosen = np.flatnonzero(is_chosen).astype(np.int64)
    return chosen, weight[chosen], offset


def _scored_items(responses: Responses) -> NDArray[np.int64]:
    return np.flatnonzero((~np.isnan(responses)).any(axis=0)).astype(np.int64)


def _well_scored_rows(responses: Responses) -> Responses:
    """The models scored on at least half as many items as any other; all, if that leaves one.

    The others have many missing outcomes, and filling these in would blur the clusters.
    """
    scored = (~np.isnan(responses)).sum(axis=1)
    half = responses[scored >= 0.5 * scored.max()]
    return np.asarray(half if len(half) >= 2 else responses[scored > 0])


def _agreed_groups(responses: Responses) -> list[NDArray[np.int64]]:
    """Items with at least two outcomes, all of them equal; binary ones are grouped by value."""
    low, high = _extremes(responses)
    times = (~np.isnan(responses)).sum(axis=0)
    agreed = (low == high) & (times >= 2)
    if are_binary(responses):
        groups = [np.flatnonzero(agreed & (low == value)) for value in (0.0, 1.0)]
    else:
        groups = [np.flatnonzero(agreed)]
    return [group for group in groups if len(group) > 0]


def _extremes(responses: Responses) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest known outcome of each item; +inf and -inf where there is none."""
    known = ~np.isnan(responses)
    low = np.where(known, responses, np.inf).min(axis=0)
    high = np.where(known, responses, -np.inf).max(axis=0)
    return low, high


def _share_audits(agreed: list[NDArray[np.int64]], count: int, *, open_items: int) -> list[int]:
    """How many items of each agreed group are scored; the rest of `count` goes to the open items.

    AUDIT_SHARE of `count` is shared by the size of the groups. Each group has at least one if
    `count` is three times the number of groups or more. If there are too few open items, the groups
    have the remainder too.
    """
    total = sum(len(group) for group in agreed)
    if total == 0:
        return []
    spare = max(0, count - open_items)
    wanted = max(spare, round(AUDIT_SHARE * count), len(agreed) if count >= 3 * len(agreed) else 0)
    wanted = min(wanted, total, count if open_items == 0 else max(spare, count - 1))
    audits = [wanted * len(group) // total for group in agreed]
    for place in np.argsort([-len(group) for group in agreed], kind="stable").tolist():
        audits[place] += min(wanted - sum(audits), len(agreed[place]) - audits[place])
    if wanted >= len(agreed):
        audits = _leave_none_empty(audits)
    return audits


def _leave_none_empty(audits: list[int]) -> list[int]:
    """Move one audit from the group with most of them to each group that has none."""
    audits = list(audits)
    for place, audit in enumerate(audits):
        if audit == 0:
            audits[int(np.argmax(audits))] -= 1
            audits[place] = 1
    return audits


def _audit_belief(
    responses: Responses, group: NDArray[np.int64], audit: int
) -> tuple[float, float]:
    """How much the audit counts (0 to 1), and the mean shift of a new model in this group.

    Each model is left out in turn. On the items that the others agree on (with the group's value,
    where outcomes are binary), its mean difference from them is a shift. The audit counts more if
    shifts differ between models by more than the chance of so few items: its share is B / (B + V),
    where B is the variance of shifts between models and V the variance of the audit's mean.
    """
    shifts, variances = [], []
    wanted = responses[:, group[0]]
    value = float(wanted[~np.isnan(wanted)][0]) if are_binary(responses) else None
    for row in range(len(responses)):
        low, high = _extremes(np.delete(responses, row, axis=0))
        alike = (low == high) & ~np.isnan(responses[row])
        if value is not None:
            alike &= low == value
        if alike.any():
            differences = responses[row, alike] - low[alike]
            shifts.append(float(differences.mean()))
            variances.append(float(differences.var()))
    if not shifts:
        return 0.0, 0.0
    between = float(np.var(shifts))
    chance = float(np.mean(variances)) / max(1, audit)
    belief = between / (between + chance) if audit > 0 and between > 0.0 else 0.0
    return belief, float(np.mean(shifts))


def _nearest_items(
    filled: Responses,
    items: NDArray[np.int64],
    picks: int,
    shuffled: NDArray[np.int64],
    bits: np.random.PCG64,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """`picks` of `items`, and how many items each of them represents.

    Where there are fewer clusters than picks, larger clusters have more anchors.
    """
    if picks >= len(items):
        return items, np.ones(len(items))
    labels, distances = cluster_items(filled[:, items].T, picks, bits)
    sizes = np.bincount(labels)
    anchors = np.ones(len(sizes), dtype=np.int64)
    for _ in range(picks - len(sizes)):
        crowding = np.where(anchors < sizes, sizes / anchors, 0.0)
        anchors[int(crowding.argmax())] += 1
    rank = np.empty(filled.shape[1], dtype=np.int64)
    rank[shuffled] = np.arange(len(shuffled))
    order = np.lexsort((rank[items], distances, labels))  # by cluster, then by distance
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    chosen = np.concatenate([order[s : s + n] for s, n in zip(starts, anchors, strict=True)])
    return items[chosen], np.repeat(sizes / anchors, anchors)
