"""Masks over task vectors, computed element by element inside a pass over memory.

Elements are kept by magnitude, at random, or at random with a probability that grows with the
magnitude's rank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from evomerge.deferred import torch
from evomerge.merge.kernels.storage import Flat, elements_at, value_of

# Random numbers for masks: a hash of the element's identity, not a stream.
#
# The draw of an element depends on the recipe's seed, the tensor's name, the model's place in the
# recipe and the element's index, and on nothing else: not on the device, the number of threads, the
# size of blocks, the order of evaluation, or the place of the files.
#
# key  = the first 8 bytes, little-endian, of BLAKE2b(seed "\n" place "\n" tensor name, in UTF-8);
#        k0 is its lower 32 bits and k1 its upper 32 bits
# h    = index ^ k0
# h    = (h ^ h >> 17) · 0xED5AD4BB
# h    = ((h ^ h >> 11) + k1) · 0xAC4C1B51
# h    = (h ^ h >> 15) · 0x31848BAB
# draw = h ^ h >> 14
# All steps are modulo 2**32.
#
# Shifts and multipliers are those of Wellons 2018 (hash prospector, "triple32"); the second half of
# the key enters between the rounds, so that keys give different sequences and not shifted ones. For
# an index of 2**32 or more, its upper part times 0x9E3779B9 is added to k0. Compiled passes compute
# the hash with `draw_of`; `draw_at` computes the same hash on any torch device.


DRAW_BITS = 32
_BLOCK = 2**18  # elements hashed at a time; bounds scratch memory, changes no draw
_WORD = 2**32 - 1


def draw_key(*, seed: int, place: int, tensor_name: str) -> int:
    """The 64-bit key of one model's draws for one tensor."""
    text = f"{seed}\n{place}\n{tensor_name}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


LIMIT_BITS = 16
"""The number of upper bits of a draw that a limit uses. A density is then exact to 2**-17, far less
than the chance variation of the share that is kept of a real tensor. Sums over kept elements then
fit into a lookup table."""


def draw_limit(probability: float) -> int:
    """The bound that draws stay below with a probability in [0, 1), to 2**-17."""
    steps: int = min(2**LIMIT_BITS - 1, round(probability * 2**LIMIT_BITS))
    return steps << (DRAW_BITS - LIMIT_BITS)


def draw(key: int, count: int, *, device: torch.device | str = "cpu") -> torch.Tensor:
    """`count` uniform integers in [0, 2**32), int64, shape (count,)."""
    draws = torch.empty(count, dtype=torch.int64, device=device)
    for start in range(0, count, _BLOCK):
        end = min(count, start + _BLOCK)
        index = torch.arange(start, end, dtype=torch.int64, device=device)
        draws[start:end] = draw_at(index, key & _WORD, key >> 32)
    return draws


def draw_at(index: torch.Tensor, low: int | torch.Tensor, high: int | torch.Tensor) -> torch.Tensor:
    """The draws of the elements at `index`, int64, for the two halves of a key; on any device."""
    key = ((index >> 32) * 0x9E3779B9 + low) & _WORD
    h = (index & _WORD) ^ key
    # An int64 product may wrap. That does not change its lower 32 bits, and only they are kept.
    h = ((h ^ (h >> 17)) * 0xED5AD4BB) & _WORD
    h = (((h ^ (h >> 11)) + high) * 0xAC4C1B51) & _WORD
    h = ((h ^ (h >> 15)) * 0x31848BAB) & _WORD
    return h ^ (h >> 14)


KEEP_ALL, KEEP_BAND, KEEP_RANDOM, KEEP_RANKED = range(4)

_NO_RANKS = np.zeros(0, dtype=np.uint16)


@dataclass(frozen=True, kw_only=True)
class Mask:
    """Which elements x of a task vector are kept.

    KEEP_BAND: low <= |x| <= high. KEEP_RANDOM: with probability `probability`, by the draws of
    `key`. KEEP_RANKED: with probability `probability` + `slope` · rank of the element; ranks:
    uint16 or uint32, (elements,). bounds: low and high where they were found on a device, float32,
    (2,), for passes on that device.
    """

    kind: int = KEEP_ALL
    low: float = 0.0
    high: float = np.inf
    key: int = 0
    probability: float = 1.0
    slope: float = 0.0
    ranks: NDArray[Any] = field(default_factory=lambda: _NO_RANKS)
    bounds: torch.Tensor | None = None

    def numbers(self) -> NDArray[np.float64]:
        """The mask as numbers for compiled code: all but the ranks."""
        key_low, key_high = self.key & 0xFFFFFFFF, self.key >> 32
        limit = draw_limit(self.probability)
        values = (self.kind, self.low, self.high, key_low, key_high, limit)
        return np.array([*values, self.probability, self.slope], dtype=np.float64)


def ranks_of(masks: Sequence[Mask]) -> tuple[NDArray[Any], ...]:
    """The ranks of every mask in one type; to compiled code a read-only array is another type."""
    dtype = np.result_type(*(mask.ranks.dtype for mask in masks))
    return tuple(np.require(mask.ranks, dtype, ("C", "W")) for mask in masks)


@njit(nogil=True, cache=True)
def read_terms(
    part: Flat,
    base: NDArray[np.float32],
    factor: np.float32,
    numbers: NDArray[np.float64],
    rank: NDArray[Any],
    ranks: int,
    start: int,
    terms: NDArray[np.float32],
) -> None:
    """terms = factor · mask · (part - base), for a block whose first element has index `start`.

    rank: any array of the ranks' dtype. ranks: the address of the ranks of all elements. Dropped
    elements are multiplied by zero, so that NaN and infinity in a source show in the result.
    """
    kind = int(numbers[0])
    if kind == 1:
        _read_band(part, base, factor, np.float32(numbers[1]), np.float32(numbers[2]), terms)
        return
    if kind == 0:
        _read_all(part, base, factor, terms)
        return
    low = np.int64(numbers[3]) + (start >> 32) * 0x9E3779B9
    k0, k1 = np.uint32(low & 0xFFFFFFFF), np.uint32(np.int64(numbers[4]))
    first = np.uint32(start & 0xFFFFFFFF)
    if kind == 2:
        limit = np.uint32(np.int64(numbers[5]))
        _read_random(part, base, factor, k0, k1, limit, first, terms)
    else:
        chance, slope = np.float32(numbers[6]), np.float32(numbers[7])
        own = elements_at(ranks, rank, start, start + part.size)
        _read_ranked(part, base, factor, k0, k1, chance, slope, own, first, terms)


@njit(nogil=True, cache=True)
def _read_all(
    part: Flat, base: NDArray[np.float32], factor: np.float32, terms: NDArray[np.float32]
) -> None:
    for j in range(part.size):
        terms[j] = (value_of(part[j]) - base[j]) * factor


@njit(nogil=True, cache=True)
def _read_band(
    part: Flat,
    base: NDArray[np.float32],
    factor: np.float32,
    low: np.float32,
    high: np.float32,
    terms: NDArray[np.float32],
) -> None:
    for j in range(part.size):
        x = value_of(part[j]) - base[j]
        kept = (abs(x) >= low) & (abs(x) <= high)
        terms[j] = x * (factor if kept else np.float32(0.0))


@njit(nogil=True, cache=True)
def _read_random(
    part: Flat,
    base: NDArray[np.float32],
    factor: np.float32,
    k0: np.uint32,
    k1: np.uint32,
    limit: np.uint32,
    first: np.uint32,
    terms: NDArray[np.float32],
) -> None:
    for j in range(part.size):
        x = value_of(part[j]) - base[j]
        kept = draw_of(np.uint32(first + np.uint32(j)), k0, k1) < limit
        terms[j] = x * (factor if kept else np.float32(0.0))


@njit(nogil=True, cache=True)
def _read_ranked(
    part: Flat,
    base: NDArray[np.float32],
    factor: np.float32,
    k0: np.uint32,
    k1: np.uint32,
    chance: np.float32,
    slope: np.float32,
    ranks: NDArray[Any],
    first: np.uint32,
    terms: NDArray[np.float32],
) -> None:
    for j in range(part.size):
        x = value_of(part[j]) - base[j]
        share = chance + slope * np.float32(ranks[j])
        limit = np.uint32(np.int64(share * np.float32(4294967296.0)))
        kept = draw_of(np.uint32(first + np.uint32(j)), k0, k1) < limit
        terms[j] = x * (factor if kept else np.float32(0.0))


@njit(inline="always")
def draw_of(index: Any, k0: Any, k1: Any) -> Any:
    """The draw of an element, in compiled code; see `draw_key`."""
    h = np.uint32(index ^ k0)
    h1 = np.uint32((h ^ (h >> np.uint32(17))) * np.uint32(0xED5AD4BB))
    h2 = np.uint32((np.uint32(h1 ^ (h1 >> np.uint32(11))) + k1) * np.uint32(0xAC4C1B51))
    h3 = np.uint32((h2 ^ (h2 >> np.uint32(15))) * np.uint32(0x31848BAB))
    return np.uint32(h3 ^ (h3 >> np.uint32(14)))
