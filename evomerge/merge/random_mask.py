"""Random numbers for masks: a hash of who and where, not a stream.

The draw of an element depends on the recipe's seed, the tensor's name, the model's place in the
recipe and the element's index, and on nothing else: not on the device, the number of threads, the
size of blocks, the order of evaluation, or where the files lie.

key  = the first 8 bytes, little-endian, of BLAKE2b(seed "\\n" place "\\n" tensor name, in UTF-8)
draw = the upper 31 bits of mix64(key + (index + 1) * 0x9E3779B97F4A7C15), modulo 2**64

mix64 is the finaliser of SplitMix64 (Steele, Lea, Flood 2014), so that the draws of a tensor are
the SplitMix64 sequence seeded with its key.
"""

from __future__ import annotations

import hashlib

import torch

DRAW_BITS = 31
_BLOCK = 2**18  # elements hashed at a time; bounds scratch memory, changes no draw


def draw_key(*, seed: int, place: int, tensor_name: str) -> int:
    """The 64-bit key of one model's draws for one tensor."""
    text = f"{seed}\n{place}\n{tensor_name}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def draw(key: int, count: int, *, device: torch.device | str = "cpu") -> torch.Tensor:
    """`count` uniform integers in [0, 2**31), int32, shape (count,)."""
    draws = torch.empty(count, dtype=torch.int32, device=device)
    for start in range(0, count, _BLOCK):
        end = min(count, start + _BLOCK)
        draws[start:end] = _mixed(key, start, end, device)
    return draws


def _mixed(key: int, start: int, end: int, device: torch.device | str) -> torch.Tensor:
    """Draws of the elements from `start` to `end`; int64 arithmetic wraps modulo 2**64."""
    z = torch.arange(start + 1, end + 1, dtype=torch.int64, device=device)
    z.mul_(_signed(0x9E3779B97F4A7C15)).add_(_signed(key))
    z.bitwise_xor_(_shifted_right(z, 30)).mul_(_signed(0xBF58476D1CE4E5B9))
    z.bitwise_xor_(_shifted_right(z, 27)).mul_(_signed(0x94D049BB133111EB))
    z.bitwise_xor_(_shifted_right(z, 31))
    return _shifted_right(z, 64 - DRAW_BITS)


def _shifted_right(z: torch.Tensor, bits: int) -> torch.Tensor:
    """A logical shift; torch's own fills with the sign."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """The int64 with the bits of a uint64."""
    return value - 2**64 if value >= 2**63 else value
