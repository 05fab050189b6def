"""Random numbers for masks: a hash of who and where, not a stream.

The draw of an element depends on the recipe's seed, the tensor's name, the model's place in the
recipe and the element's index, and on nothing else: not on the device, the number of threads, the
size of blocks, the order of evaluation, or where the files lie.

key  = the first 8 bytes, little-endian, of BLAKE2b(seed "\\n" place "\\n" tensor name, in UTF-8);
       k0 its lower and k1 its upper 32 bits
h    = index ^ k0
h    = (h ^ h >> 17) · 0xED5AD4BB
h    = ((h ^ h >> 11) + k1) · 0xAC4C1B51
h    = (h ^ h >> 15) · 0x31848BAB
draw = h ^ h >> 14                                              all modulo 2**32

Shifts and multipliers are those of Wellons 2018 (hash prospector, "triple32"); the second half of
the key enters between the rounds, so that keys give different sequences and not shifted ones. An
index of 2**32 or more adds its upper part, times 0x9E3779B9, to k0. Merge kernels compute the same
hash inside their pass (kernels/masks.py); this one works on any torch device.
"""

from __future__ import annotations

import hashlib

import torch

DRAW_BITS = 32
_BLOCK = 2**18  # elements hashed at a time; bounds scratch memory, changes no draw
_WORD = 2**32 - 1


def draw_key(*, seed: int, place: int, tensor_name: str) -> int:
    """The 64-bit key of one model's draws for one tensor."""
    text = f"{seed}\n{place}\n{tensor_name}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


LIMIT_BITS = 16
"""Upper bits of a draw that a limit is given in: a density to 2**-17, far below what chance does to
the share that is kept of any real tensor. Sums over what is kept are then looked up in a table."""


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
    # An int64 product may wrap, but its lower 32 bits, all that is kept, do not change by that.
    h = ((h ^ (h >> 17)) * 0xED5AD4BB) & _WORD
    h = (((h ^ (h >> 11)) + high) * 0xAC4C1B51) & _WORD
    h = ((h ^ (h >> 15)) * 0x31848BAB) & _WORD
    return h ^ (h >> 14)
