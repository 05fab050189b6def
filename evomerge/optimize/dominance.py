"""Which of several losses are worth having together: domination, crowding and hypervolume.

Losses are (n, m) float64, a row a candidate and a column an objective, lower is better. Nothing
here knows an optimiser or where losses come from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
    """The front of each candidate, (n,), from 0: those that nothing outside lower fronts dominates.

    Non-dominated sorting (Deb et al. 2002, section III.A).
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

    Deb et al. 2002, section III.B. An objective in which all are equal says nothing.
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
    for one in np.unique(rank):
        spread[rank == one] = crowding(losses[rank == one])
    return np.lexsort((np.arange(len(losses)), -spread, rank)).astype(np.int64)


def hypervolume(losses: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Volume between the losses of a front, (..., k, m), and the reference, (m,): (...).

    What is not below the reference adds nothing, and neither do dominated rows. By slices along
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
