"""Election of signs over a block of masked task vectors (TIES, Yadav et al. 2023).

out = base + strength · Σ of the terms that have the sign of the sum of all; `normalize` divides
that sum by the weights of the terms that count. A sum that is NaN stays NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from evomerge.merge.kernels.storage import BLOCK, Flat, stored_as


@njit(nogil=True, cache=True)
def elect_block(
    terms: NDArray[np.float32],
    weights: NDArray[np.float32],
    normalize: bool,
    strength: np.float32,
    base: NDArray[np.float32],
    out: Flat,
) -> None:
    """Write one block into `out`. terms: (members, BLOCK). weights: (members,). base: (BLOCK,)."""
    members = len(terms)
    if members == 2:
        _elect_two(terms, weights, normalize, strength, base, out)
    elif members == 3:
        _elect_three(terms, weights, normalize, strength, base, out)
    else:
        _elect_many(terms, weights, normalize, strength, base, out)


def _election_of(members: int) -> Any:
    """One loop over the elements: for few members, two thirds of the time of a loop for each."""
    zero, one = np.float32(0.0), np.float32(1.0)

    @njit(nogil=True, cache=True)
    def elect(
        terms: NDArray[np.float32],
        weights: NDArray[np.float32],
        normalize: bool,
        strength: np.float32,
        base: NDArray[np.float32],
        out: Flat,
    ) -> None:
        if normalize:
            for j in range(out.size):
                vote = zero
                for member in range(members):
                    vote += terms[member, j]
                sign = one if vote >= zero else -one
                total, divisor = zero, zero
                for member in range(members):
                    agreeing = terms[member, j] * sign
                    total += agreeing if agreeing > zero else zero
                    weight = weights[member]  # read before the choice, which then needs no branch
                    divisor += weight if agreeing > zero else zero
                mean = total / (divisor if divisor != zero else one)
                mean = mean * sign if vote == vote else vote  # keep NaN visible
                out[j] = stored_as(out, base[j] + mean * strength)
        else:
            for j in range(out.size):
                vote = zero
                for member in range(members):
                    vote += terms[member, j]
                sign = one if vote >= zero else -one
                total = zero
                for member in range(members):
                    agreeing = terms[member, j] * sign
                    total += agreeing if agreeing > zero else zero
                total = total * sign if vote == vote else vote
                out[j] = stored_as(out, base[j] + total * strength)

    return elect


_elect_two, _elect_three = _election_of(2), _election_of(3)


@njit(nogil=True, cache=True)
def _elect_many(
    terms: NDArray[np.float32],
    weights: NDArray[np.float32],
    normalize: bool,
    strength: np.float32,
    base: NDArray[np.float32],
    out: Flat,
) -> None:
    """A loop over the elements for each member: the same for any number of them."""
    vote = np.zeros(BLOCK, np.float32)
    total = np.zeros(BLOCK, np.float32)
    divisor = np.zeros(BLOCK, np.float32) if normalize else np.ones(BLOCK, np.float32)
    for member in range(len(terms)):
        add(terms[member], vote)
    for member in range(len(terms)):
        if normalize:
            _add_agreeing_weighted(terms[member], vote, weights[member], total, divisor)
        else:
            _add_agreeing(terms[member], vote, total)
    _write_elected(base, vote, total, divisor, strength, out)


@njit(nogil=True, cache=True)
def add(terms: NDArray[np.float32], total: NDArray[np.float32]) -> None:
    """total += terms, for one block."""
    for j in range(BLOCK):
        total[j] += terms[j]


@njit(nogil=True, cache=True)
def _add_agreeing(
    terms: NDArray[np.float32], vote: NDArray[np.float32], total: NDArray[np.float32]
) -> None:
    """total += the magnitudes of the terms that have the sign of the vote."""
    zero, one = np.float32(0.0), np.float32(1.0)
    for j in range(BLOCK):
        agreeing = terms[j] * (one if vote[j] >= zero else -one)
        total[j] += agreeing if agreeing > zero else zero


@njit(nogil=True, cache=True)
def _add_agreeing_weighted(
    terms: NDArray[np.float32],
    vote: NDArray[np.float32],
    weight: np.float32,
    total: NDArray[np.float32],
    divisor: NDArray[np.float32],
) -> None:
    """As `_add_agreeing`; divisor += the weight where a term counts."""
    zero, one = np.float32(0.0), np.float32(1.0)
    for j in range(BLOCK):
        agreeing = terms[j] * (one if vote[j] >= zero else -one)
        total[j] += agreeing if agreeing > zero else zero
        divisor[j] += weight if agreeing > zero else zero


@njit(nogil=True, cache=True)
def _write_elected(
    base: NDArray[np.float32],
    vote: NDArray[np.float32],
    total: NDArray[np.float32],
    divisor: NDArray[np.float32],
    strength: np.float32,
    out: Flat,
) -> None:
    zero, one = np.float32(0.0), np.float32(1.0)
    for j in range(out.size):
        mean = total[j] / (divisor[j] if divisor[j] != zero else one)
        sign = one if vote[j] >= zero else -one
        mean = mean * sign if vote[j] == vote[j] else vote[j]
        out[j] = stored_as(out, base[j] + mean * strength)
