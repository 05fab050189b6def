"""base + λ · consensus(weight · mask(θ - base)) in one pass over memory.

Every member is read once and the result is written once. Some recipes need sums of magnitudes
first, in a pass of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from evomerge.merge.kernels import portable
from evomerge.merge.kernels.masks import KEEP_ALL, Mask, ranks_of, read_terms
from evomerge.merge.kernels.storage import BLOCK, Flat, flat, operands, stored_as, value_of
from evomerge.merge.kernels.threads import over_ranges

SUM_UNIT = 2**16
"""Elements that are summed together; the sums of units are added in order."""

_LANES = 64


def combine_task_vectors(
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    factors: Sequence[float],
    masks: Sequence[Mask],
    out: torch.Tensor,
    *,
    weights: Sequence[float],
    left_out: float,
    elect: bool,
    normalize: bool,
    strength: float,
) -> None:
    """Write base + strength · consensus into `out`, in float32, rounded once.

    factors: for each masked task vector, its weight times its rescaling. weights: the weights
    alone; normalising divides by their sum. left_out: the sum of the weights of members that are
    not given; without election, normalising adds it. elect: only elements with the sign of the sum
    of all count (Yadav et al. 2023). out: contiguous, of the base's shape.
    """
    total = np.float32(left_out)
    for weight in weights:
        total += np.float32(weight)
    divisor = np.float32(total if normalize and abs(total) >= 1e-8 else 1.0)
    if not portable.runs_here(out):
        portable.combine_task_vectors(
            base,
            experts,
            factors,
            masks,
            out,
            weights=weights,
            divisor=float(divisor),
            elect=elect,
            normalize=normalize,
            strength=strength,
        )
        return
    arrays = operands([base, *experts])
    numbers = np.stack([mask.numbers() for mask in masks])
    ranks = ranks_of(masks)
    scales = np.array(factors, dtype=np.float32)
    shares = np.array(weights, dtype=np.float32)
    whole = all(mask.kind == KEEP_ALL for mask in masks)
    target = flat(out)
    level = np.float32(strength)

    def work(start: int, stop: int) -> None:
        if elect:
            _elected(arrays, scales, shares, numbers, ranks, normalize, level, target, start, stop)
        elif whole:
            _added_whole(arrays, scales, divisor, level, target, start, stop)
        else:
            _added(arrays, scales, numbers, ranks, divisor, level, target, start, stop)

    over_ranges(work, out.numel(), unit=BLOCK)


def absolute_sums(
    base: torch.Tensor, experts: Sequence[torch.Tensor], masks: Sequence[Mask]
) -> NDArray[np.float64]:
    """Σ |θ - base| over what its mask keeps of each expert, (experts,), in one pass.

    Each sum is the same on any number of threads and whatever other experts there are.
    """
    if not portable.runs_here(base):
        pairs = zip(experts, masks, strict=True)
        return np.array([portable.absolute_sum(base, expert, mask) for expert, mask in pairs])
    arrays = operands([base, *experts])
    count = base.numel()
    sums = np.zeros((len(experts), -(-count // SUM_UNIT)), dtype=np.float64)
    numbers = np.stack([mask.numbers() for mask in masks])
    ranks = ranks_of(masks)

    def work(start: int, stop: int) -> None:
        _absolute_sums(arrays, numbers, ranks, start, stop, sums)

    over_ranges(work, count, unit=SUM_UNIT)
    total: NDArray[np.float64] = np.add.reduce(sums, axis=1)
    return total


@njit(nogil=True, cache=True)
def _added(
    arrays: tuple[Flat, ...],
    factors: NDArray[np.float32],
    numbers: NDArray[np.float64],
    ranks: tuple[NDArray[Any], ...],
    divisor: np.float32,
    strength: np.float32,
    out: Flat,
    start: int,
    stop: int,
) -> None:
    terms = np.empty((len(arrays) - 1, BLOCK), np.float32)
    base = np.empty(BLOCK, np.float32)
    for position in range(start, stop, BLOCK):
        count = min(BLOCK, stop - position)
        _read(arrays[0][position : position + count], base)
        for member in range(len(arrays) - 1):
            part = arrays[member + 1][position : position + count]
            own = numbers[member]
            read_terms(part, base, factors[member], own, ranks[member], position, terms[member])
        _sum_terms(ranks, terms, divisor, strength, base, out[position : position + count])


@njit(nogil=True, cache=True)
def _added_whole(
    arrays: tuple[Flat, ...],
    factors: NDArray[np.float32],
    divisor: np.float32,
    strength: np.float32,
    out: Flat,
    start: int,
    stop: int,
) -> None:
    """As `_added` where nothing is masked: one loop for each member; the last loop writes."""
    last = len(arrays) - 1
    total = np.empty(BLOCK, np.float32)
    for position in range(start, stop, BLOCK):
        count = min(BLOCK, stop - position)
        base = arrays[0][position : position + count]
        if last == 1:
            total[:] = np.float32(0.0)
        else:
            _first_term(arrays[1][position : position + count], base, factors[0], total)
        for member in range(2, last):
            part = arrays[member][position : position + count]
            _add_term(part, base, factors[member - 1], total)
        part, factor = arrays[last][position : position + count], factors[last - 1]
        if divisor == np.float32(1.0) and strength == np.float32(1.0):
            _last_term(part, base, factor, total, out[position : position + count])
        else:
            _last_term_scaled(
                part, base, factor, total, divisor, strength, out[position : position + count]
            )


@njit(nogil=True, cache=True)
def _first_term(part: Flat, base: Flat, factor: np.float32, total: NDArray[np.float32]) -> None:
    for j in range(part.size):
        total[j] = (value_of(part[j]) - value_of(base[j])) * factor


@njit(nogil=True, cache=True)
def _add_term(part: Flat, base: Flat, factor: np.float32, total: NDArray[np.float32]) -> None:
    for j in range(part.size):
        total[j] += (value_of(part[j]) - value_of(base[j])) * factor


@njit(nogil=True, cache=True)
def _last_term(
    part: Flat, base: Flat, factor: np.float32, total: NDArray[np.float32], out: Flat
) -> None:
    for j in range(out.size):
        origin = value_of(base[j])
        out[j] = stored_as(out, origin + (total[j] + (value_of(part[j]) - origin) * factor))


@njit(nogil=True, cache=True)
def _last_term_scaled(
    part: Flat,
    base: Flat,
    factor: np.float32,
    total: NDArray[np.float32],
    divisor: np.float32,
    strength: np.float32,
    out: Flat,
) -> None:
    for j in range(out.size):
        origin = value_of(base[j])
        mixed = (total[j] + (value_of(part[j]) - origin) * factor) / divisor
        out[j] = stored_as(out, origin + mixed * strength)


@njit(nogil=True, cache=True)
def _sum_terms(
    members: tuple[NDArray[Any], ...],
    terms: NDArray[np.float32],
    divisor: np.float32,
    strength: np.float32,
    base: NDArray[np.float32],
    out: Flat,
) -> None:
    """out = base + strength · Σ terms / divisor.

    members: a tuple with one entry for each member. The compiler knows its length and unrolls the
    loop over members; only then can it work on several elements at once.
    """
    for j in range(out.size):
        total = np.float32(0.0)
        for member in range(len(members)):
            total += terms[member, j]
        out[j] = stored_as(out, base[j] + total / divisor * strength)


@njit(nogil=True, cache=True)
def _elected(
    arrays: tuple[Flat, ...],
    factors: NDArray[np.float32],
    weights: NDArray[np.float32],
    numbers: NDArray[np.float64],
    ranks: tuple[NDArray[Any], ...],
    normalize: bool,
    strength: np.float32,
    out: Flat,
    start: int,
    stop: int,
) -> None:
    terms = np.empty((len(arrays) - 1, BLOCK), np.float32)
    base = np.empty(BLOCK, np.float32)
    for position in range(start, stop, BLOCK):
        count = min(BLOCK, stop - position)
        _read(arrays[0][position : position + count], base)
        for member in range(len(arrays) - 1):
            part = arrays[member + 1][position : position + count]
            own = numbers[member]
            read_terms(part, base, factors[member], own, ranks[member], position, terms[member])
        part = out[position : position + count]
        if normalize:
            _elect_normalized(ranks, terms, weights, strength, base, part)
        else:
            _elect(ranks, terms, strength, base, part)


@njit(nogil=True, cache=True)
def _elect(
    members: tuple[NDArray[Any], ...],
    terms: NDArray[np.float32],
    strength: np.float32,
    base: NDArray[np.float32],
    out: Flat,
) -> None:
    """out = base + strength · Σ of the terms that have the sign of the sum of all."""
    zero = np.float32(0.0)
    for j in range(out.size):
        vote = zero
        for member in range(len(members)):
            vote += terms[member, j]
        sign = np.float32(1.0) if vote >= zero else np.float32(-1.0)
        total = zero
        for member in range(len(members)):
            agreeing = terms[member, j] * sign
            total += agreeing if agreeing > zero else zero
        total = total * sign if vote == vote else vote  # keep NaN visible
        out[j] = stored_as(out, base[j] + total * strength)


@njit(nogil=True, cache=True)
def _elect_normalized(
    members: tuple[NDArray[Any], ...],
    terms: NDArray[np.float32],
    weights: NDArray[np.float32],
    strength: np.float32,
    base: NDArray[np.float32],
    out: Flat,
) -> None:
    """As `_elect`, the sum divided by the weights of the terms that count."""
    zero, one = np.float32(0.0), np.float32(1.0)
    for j in range(out.size):
        vote = zero
        for member in range(len(members)):
            vote += terms[member, j]
        sign = one if vote >= zero else -one
        total, divisor = zero, zero
        for member in range(len(members)):
            agreeing = terms[member, j] * sign
            total += agreeing if agreeing > zero else zero
            weight = weights[member]  # read before the choice, which then needs no branch
            divisor += weight if agreeing > zero else zero
        mean = total / (divisor if divisor != zero else one)
        mean = mean * sign if vote == vote else vote
        out[j] = stored_as(out, base[j] + mean * strength)


@njit(nogil=True, cache=True)
def _absolute_sums(
    arrays: tuple[Flat, ...],
    numbers: NDArray[np.float64],
    ranks: tuple[NDArray[Any], ...],
    start: int,
    stop: int,
    sums: NDArray[np.float64],
) -> None:
    """sums[member, unit] = Σ |x| of each unit in [start, stop), added up in lanes."""
    members = len(arrays) - 1
    base = np.empty(BLOCK, np.float32)
    terms = np.empty(BLOCK, np.float32)
    short = np.empty(_LANES, np.float32)
    lanes = np.empty((members, _LANES), np.float64)
    for unit in range(start // SUM_UNIT, -(-stop // SUM_UNIT)):
        lanes[:] = 0.0
        for position in range(unit * SUM_UNIT, min((unit + 1) * SUM_UNIT, stop), BLOCK):
            count = min(BLOCK, stop - position)
            _read(arrays[0][position : position + count], base)
            for member in range(members):
                part = arrays[member + 1][position : position + count]
                own = numbers[member]
                read_terms(part, base, np.float32(1.0), own, ranks[member], position, terms)
                terms[count:] = np.float32(0.0)
                _add_to_lanes(terms, short, lanes[member])
        for member in range(members):
            sums[member, unit] = np.sum(lanes[member])


@njit(nogil=True, cache=True)
def _add_to_lanes(
    terms: NDArray[np.float32], short: NDArray[np.float32], lanes: NDArray[np.float64]
) -> None:
    """Sixteen terms at a time in float32, to 1e-7 of their sum, then float64."""
    short[:] = np.float32(0.0)
    for row in range(BLOCK // _LANES):
        for lane in range(_LANES):
            short[lane] += abs(terms[row * _LANES + lane])
    for lane in range(_LANES):
        lanes[lane] += short[lane]


@njit(nogil=True, cache=True)
def _read(part: Flat, block: NDArray[np.float32]) -> None:
    for j in range(part.size):
        block[j] = value_of(part[j])
