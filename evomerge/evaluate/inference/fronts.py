"""How much a front of models gains over others, and how sure that is.

The hypervolume of many noisy scores is too large, because the luckiest model on each axis decides
it. A bootstrap does not help: for copies of the parents, its percentile interval misses the truth
half of the time. So the low end of our interval uses the low ends of all members' scores. These
hold for all members, others and axes at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluate.inference.intervals import RESAMPLES, Interval, resample_terms
from evomerge.evaluate.inference.simultaneous import simultaneous_differences
from evomerge.evaluate.objective import Objective, Scores, Term, means_of

# Domination, crowding and hypervolume of several losses.
#
# Losses are (n, m) float64: a row for each candidate, a column for each objective, lower is better.


def dominated_by(
    losses: NDArray[np.float64], violation: NDArray[np.float64] | None = None
) -> NDArray[np.bool_]:
    """[i, j]: whether candidate j dominates candidate i, (n, n).

    j is nowhere worse and somewhere better. violation: (n,), how far each breaks its constraints;
    0 is feasible. A feasible candidate dominates an infeasible one, and of two infeasible ones the
    smaller violation dominates (Deb 2000; Deb et al. 2002, definition 1).
    """
    worse = losses[:, None, :] - losses[None, :, :]
    dominated = np.asarray((worse >= 0.0).all(axis=-1) & (worse > 0.0).any(axis=-1))
    if violation is None:
        return dominated
    more = violation[:, None] > violation[None, :]
    feasible = (violation[:, None] <= 0.0) & (violation[None, :] <= 0.0)
    return np.where(feasible, dominated, more)


def fronts(
    losses: NDArray[np.float64], violation: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """The number of each candidate's front, (n,), from 0.

    Only candidates in lower fronts dominate a candidate: non-dominated sorting (Deb et al. 2002,
    section III.A).
    """
    dominated = dominated_by(losses, violation)
    found = np.full(len(losses), -1, dtype=np.int64)
    rank = 0
    while (found < 0).any():
        left = found < 0
        found[left & ~dominated[:, left].any(axis=1)] = rank
        rank += 1
    return found


def crowding(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Crowding distance of each candidate among these, (n,); infinite at the ends of an objective.

    Deb et al. 2002, section III.B. An objective in which all are equal is left out.
    """
    distance = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        extent = column[order[-1]] - column[order[0]]
        if extent <= 0.0:
            continue
        distance[order[[0, -1]]] = np.inf
        distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / extent
    return distance


def front_order(
    losses: NDArray[np.float64], violation: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Candidates by front, within a front the least crowded first, (n,); ties keep their order."""
    rank = fronts(losses, violation)
    spread = np.empty(len(losses))
    for front in np.unique(rank):
        spread[rank == front] = crowding(losses[rank == front])
    return np.lexsort((np.arange(len(losses)), -spread, rank)).astype(np.int64)


def hypervolume(losses: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Volume between the losses of a front, (..., k, m), and the reference, (m,): (...).

    Losses beyond the reference add nothing, and neither do dominated rows. Computed by slices along
    the last objective (Zitzler & Thiele 1998); the cost is k^(m - 2) sorts of k.
    """
    if losses.shape[-2] == 0:
        return np.zeros(losses.shape[:-2])
    inside = np.minimum(losses, reference)
    if losses.shape[-1] == 1:
        return np.asarray(reference[0] - inside[..., 0].min(axis=-1))
    order = np.argsort(inside[..., -1], axis=-1, kind="stable")
    ordered = np.take_along_axis(inside, order[..., None], axis=-2)
    ends = np.concatenate(
        [ordered[..., 1:, -1], np.broadcast_to(reference[-1], (*ordered.shape[:-2], 1))], axis=-1
    )
    thickness = ends - ordered[..., -1]  # (..., k)
    if losses.shape[-1] == 2:
        reach = reference[0] - np.minimum.accumulate(ordered[..., 0], axis=-1)
        return np.asarray((thickness * reach).sum(axis=-1))
    total = np.zeros(losses.shape[:-2])
    for count in range(1, losses.shape[-2] + 1):
        slab = hypervolume(ordered[..., :count, :-1], reference[:-1])
        total += thickness[..., count - 1] * slab
    return total


BEYOND = 0.1
"""Distance of the reference point from the parents' worst, in ranges (Ishibuchi et al. 2011)."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """The losses that count: from a reference point to the best of all parents on each axis.

    Volumes are in units of the box: 1 is a model as good as the best parent on every axis.
    """

    reference: NDArray[np.float64]  # (axes,)
    ideal: NDArray[np.float64]  # (axes,)

    def volume(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of the box that models dominate, (..., models, axes) to (...); it may exceed 1."""
        scale = self.reference - self.ideal
        return hypervolume((losses - self.ideal) / scale, np.ones(len(scale)))


@dataclass(frozen=True, kw_only=True)
class FrontGain:
    """A front compared with other models, on the same items.

    volume, others_volume: hypervolumes, in units of a box. gain: their difference, corrected for
    the luck of the front as far as a bootstrap shows it. dominates: (members, others), whether a
    member is nowhere worse than another model and somewhere better. surely_dominates: whether that
    holds for all pairs at once with the confidence of `gain`.
    """

    volume: float
    others_volume: float
    gain: Interval
    dominates: NDArray[np.bool_]
    surely_dominates: NDArray[np.bool_]


def box_of(losses: NDArray[np.float64]) -> Box:
    """The box of the parents' losses (parents, axes); a tenth of a score wide where all agree."""
    worst, best = losses.max(axis=0), losses.min(axis=0)
    extent = np.where(worst > best, worst - best, np.maximum(np.abs(best), 0.1))
    return Box(reference=worst + BEYOND * extent, ideal=best)


def front_gain(
    objective: Objective,
    members: Sequence[Scores],
    others: Sequence[Scores],
    *,
    box: Box,
    seed: int,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> FrontGain:
    """What a front gains over the front of others; all of them are scored on the same items.

    The high end of the interval and the correction come from a paired bootstrap (basic interval,
    Efron & Tibshirani 1993). The low end holds for every member at once.
    """
    count = len(members)
    losses = objective.losses([means_of(scores) for scores in (*members, *others)])
    low = _low_ends(objective, members, others, seed, confidence, resamples)
    # A member's score is at least another's plus the low end of their difference, for any other.
    at_worst = (losses[count:] - low).min(axis=1)  # (members, axes)
    volume, others_volume = box.volume(losses[:count]), box.volume(losses[count:])
    terms = resample_terms(objective, (*members, *others), seed=seed, resamples=resamples)
    drawn = np.moveaxis(objective.losses_of(terms), 1, 0)  # (resamples, models, axes)
    gains = box.volume(drawn[:, :count]) - box.volume(drawn[:, count:])
    least = float(box.volume(at_worst) - others_volume)
    twice = 2.0 * float(volume - others_volume)
    value = max(least, twice - float(gains.mean()))
    most = twice - float(np.quantile(gains, (1.0 - confidence) / 2.0))
    better = losses[None, count:] - losses[:count, None]  # (members, others, axes)
    return FrontGain(
        volume=float(volume),
        others_volume=float(others_volume),
        gain=Interval(value=value, low=least, high=max(value, most), confidence=confidence),
        dominates=_dominates(better),
        surely_dominates=_dominates(low),
    )


def _dominates(better: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Nowhere below 0 and somewhere above it, (..., axes) to (...)."""
    return np.asarray((better >= 0.0).all(axis=-1) & (better > 0.0).any(axis=-1))


def _low_ends(
    objective: Objective,
    members: Sequence[Scores],
    others: Sequence[Scores],
    seed: int,
    confidence: float,
    resamples: int,
) -> NDArray[np.float64]:
    """How much better each member is at least than each other, (members, others, axes)."""
    pairs = [(member, other) for member in members for other in others]
    axes = objective.axes
    low = np.empty((len(pairs), len(axes)))
    for column, metric in enumerate(axes):
        alone = Objective(terms=[Term(metric=metric, weight=1.0)], aggregate="mean")
        differences = simultaneous_differences(
            alone,
            pairs,
            seed=seed,
            confidence=1.0 - (1.0 - confidence) / len(axes),
            resamples=resamples,
        )
        low[:, column] = [
            0.0 if member is other else difference.interval.low
            for (member, other), difference in zip(pairs, differences, strict=True)
        ]
    return low.reshape(len(members), len(others), len(axes))
