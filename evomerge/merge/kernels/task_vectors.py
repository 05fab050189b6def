"""base + λ · consensus(weight · mask(θ - base)) in one pass over memory.

Every member is read once and the result is written once. Some recipes need sums of magnitudes
first, in a pass of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from evomerge.merge.kernels import portable
from evomerge.merge.kernels.elections import add, elect_block
from evomerge.merge.kernels.masks import KEEP_ALL, Mask, ranks_of, read_terms
from evomerge.merge.kernels.storage import (
    BLOCK,
    Flat,
    addresses,
    elements_at,
    flat,
    operands,
    stored_as,
    value_of,
)
from evomerge.merge.kernels.threads import over_ranges

if TYPE_CHECKING:
    import torch

SUM_UNIT = 2**16
"""Elements that are summed together; the sums of units are added in order."""

_LANES = 64


def combine_task_vectors(
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    factors: Sequence[float] | torch.Tensor,
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

    factors: for each masked task vector, its weight times its rescaling; what `rescaled` gives on
    other devices. weights: the weights
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
    origin, *arrays = operands([base, *experts])
    others = addresses(arrays)
    numbers = np.stack([mask.numbers() for mask in masks])
    ranks = ranks_of(masks)
    places = addresses(ranks)
    scales = np.array(factors, dtype=np.float32)
    shares = np.array(weights, dtype=np.float32)
    whole = all(mask.kind == KEEP_ALL for mask in masks)
    target = flat(out)
    level = np.float32(strength)

    def work(start: int, stop: int) -> None:
        if whole and not elect:
            _added_whole(origin, others, scales, divisor, level, target, start, stop)
            return
        read = (origin, others, scales, numbers, ranks[0], places)
        if elect:
            _elected(*read, shares, normalize, level, target, start, stop)
        else:
            _added(*read, divisor, level, target, start, stop)

    over_ranges(work, out.numel(), unit=BLOCK)


def absolute_sums(
    base: torch.Tensor, experts: Sequence[torch.Tensor], masks: Sequence[Mask]
) -> NDArray[np.float64]:
    """Σ |θ - base| over what its mask keeps of each expert, (experts,), in one pass.

    Each sum is the same on any number of threads and whatever other experts there are.
    """
    if not portable.runs_here(base):
        found: NDArray[np.float64] = portable.absolute_sums(base, experts, masks).cpu().numpy()
        return found
    origin, *arrays = operands([base, *experts])
    others = addresses(arrays)
    count = base.numel()
    sums = np.zeros((len(experts), -(-count // SUM_UNIT)), dtype=np.float64)
    numbers = np.stack([mask.numbers() for mask in masks])
    ranks = ranks_of(masks)
    places = addresses(ranks)

    def work(start: int, stop: int) -> None:
        _absolute_sums(origin, others, numbers, ranks[0], places, start, stop, sums)

    over_ranges(work, count, unit=SUM_UNIT)
    total: NDArray[np.float64] = np.add.reduce(sums, axis=1)
    return total


def rescaled(
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    masks: Sequence[Mask],
    *,
    weights: Sequence[float],
    before: Sequence[float],
    smallest: float,
) -> Sequence[float] | torch.Tensor:
    """weight · Σ |θ - base| / the sum over what the mask keeps, for each expert.

    before: the first of the sums; 0 for an expert that is kept whole. smallest: an expert with a
    sum under it has its weight alone. On other devices this is a tensor there, so that the host
    need not wait.
    """
    if not portable.runs_here(base):
        after = portable.absolute_sums(base, experts, masks)
        return portable.rescaled(weights, before, after, smallest)
    factors = list(weights)
    thinned = [place for place, whole in enumerate(before) if whole >= smallest]
    if thinned:
        sums = absolute_sums(base, [experts[n] for n in thinned], [masks[n] for n in thinned])
        for place, kept in zip(thinned, sums.tolist(), strict=True):
            if kept >= smallest:
                factors[place] = weights[place] * (before[place] / kept)
    return factors


# Compiled code. A kernel takes the base as an array and the experts, which have its dtype, by their
# addresses; the ranks of masks by their addresses too, with one of them for its dtype. Loops over
# members lie outside loops over the elements of a block, so that these work on several elements at
# once for any number of members.


@njit(nogil=True, cache=True)
def _added(
    origin: Flat,
    experts: NDArray[np.int64],
    factors: NDArray[np.float32],
    numbers: NDArray[np.float64],
    rank: NDArray[Any],
    ranks: NDArray[np.int64],
    divisor: np.float32,
    strength: np.float32,
    out: Flat,
    start: int,
    stop: int,
) -> None:
    """out = base + strength · Σ terms / divisor."""
    base = np.empty(BLOCK, np.float32)
    terms = np.empty(BLOCK, np.float32)
    total = np.empty(BLOCK, np.float32)
    for position in range(start, stop, BLOCK):
        end = min(position + BLOCK, stop)
        _read(origin[position:end], base)
        total[:] = np.float32(0.0)
        for member in range(len(experts)):
            part = elements_at(experts[member], origin, position, end)
            own, address = numbers[member], ranks[member]
            read_terms(part, base, factors[member], own, rank, address, position, terms)
            add(terms, total)
        _write_sum(base, total, divisor, strength, out[position:end])


@njit(nogil=True, cache=True)
def _added_whole(
    origin: Flat,
    experts: NDArray[np.int64],
    factors: NDArray[np.float32],
    divisor: np.float32,
    strength: np.float32,
    out: Flat,
    start: int,
    stop: int,
) -> None:
    """As `_added` where nothing is masked: one loop for each member; the last loop writes."""
    last = len(experts) - 1
    total = np.empty(BLOCK, np.float32)
    for position in range(start, stop, BLOCK):
        end = min(position + BLOCK, stop)
        base = origin[position:end]
        if last == 0:
            total[:] = np.float32(0.0)
        else:
            _first_term(elements_at(experts[0], origin, position, end), base, factors[0], total)
        for member in range(1, last):
            part = elements_at(experts[member], origin, position, end)
            _add_term(part, base, factors[member], total)
        part, factor = elements_at(experts[last], origin, position, end), factors[last]
        if divisor == np.float32(1.0) and strength == np.float32(1.0):
            _last_term(part, base, factor, total, out[position:end])
        else:
            _last_term_scaled(part, base, factor, total, divisor, strength, out[position:end])


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
def _elected(
    origin: Flat,
    experts: NDArray[np.int64],
    factors: NDArray[np.float32],
    numbers: NDArray[np.float64],
    rank: NDArray[Any],
    ranks: NDArray[np.int64],
    weights: NDArray[np.float32],
    normalize: bool,
    strength: np.float32,
    out: Flat,
    start: int,
    stop: int,
) -> None:
    members = len(experts)
    terms = np.empty((members, BLOCK), np.float32)
    base = np.empty(BLOCK, np.float32)
    for position in range(start, stop, BLOCK):
        end = min(position + BLOCK, stop)
        _read(origin[position:end], base)
        for member in range(members):
            part = elements_at(experts[member], origin, position, end)
            own, address, term = numbers[member], ranks[member], terms[member]
            read_terms(part, base, factors[member], own, rank, address, position, term)
        elect_block(terms, weights, normalize, strength, base, out[position:end])


@njit(nogil=True, cache=True)
def _write_sum(
    base: NDArray[np.float32],
    total: NDArray[np.float32],
    divisor: np.float32,
    strength: np.float32,
    out: Flat,
) -> None:
    for j in range(out.size):
        out[j] = stored_as(out, base[j] + total[j] / divisor * strength)


@njit(nogil=True, cache=True)
def _absolute_sums(
    origin: Flat,
    experts: NDArray[np.int64],
    numbers: NDArray[np.float64],
    rank: NDArray[Any],
    ranks: NDArray[np.int64],
    start: int,
    stop: int,
    sums: NDArray[np.float64],
) -> None:
    """sums[member, unit] = Σ |x| of each unit in [start, stop), added up in lanes."""
    members = len(experts)
    base = np.empty(BLOCK, np.float32)
    terms = np.empty(BLOCK, np.float32)
    short = np.empty(_LANES, np.float32)
    lanes = np.empty((members, _LANES), np.float64)
    for unit in range(start // SUM_UNIT, -(-stop // SUM_UNIT)):
        lanes[:] = 0.0
        for position in range(unit * SUM_UNIT, min((unit + 1) * SUM_UNIT, stop), BLOCK):
            end = min(position + BLOCK, stop)
            _read(origin[position:end], base)
            for member in range(members):
                part = elements_at(experts[member], origin, position, end)
                own, address = numbers[member], ranks[member]
                one = np.float32(1.0)
                read_terms(part, base, one, own, rank, address, position, terms)
                terms[end - position :] = np.float32(0.0)
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
