"""Finds questions that are almost the same: by words, then by pieces (MinHash, Broder 1997).

Two questions with different numbers are never almost the same: they ask for different answers.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_PIECE = 5
"""Characters of a piece of text."""

_BANDS, _ROWS = 16, 4
"""A pair that shares 0.85 of its pieces is missed with probability (1 - 0.85^4)^16 = 6e-6."""

LEAST_SHARED = 0.85
"""Share of their pieces (Jaccard) that two questions have in common to be almost the same."""

_MOST_PIECES = 2_000
"""Pieces kept of a long text: those with the smallest hashes, which are alike for alike texts."""

_MOST_COMPARED = 20
"""Questions of one band's bucket that each is compared with: templates can fill a bucket."""

_PRIME = np.uint64(2**61 - 1)
_DIGITS = re.compile(r"\d+")


def plain_text(parts: Iterable[str]) -> str:
    """Texts as one, without case, punctuation and repeated spaces, for comparison."""
    text = unicodedata.normalize("NFKC", "\n".join(parts)).casefold()
    return " ".join("".join(sign if sign.isalnum() else " " for sign in text).split())


def similar_pairs(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of positions whose texts are almost the same, each question with the first alike.

    texts: as plain_text gives them. Pairs are sorted; the first position is the smaller.
    """
    first_of: dict[str, int] = {}
    pairs: set[tuple[int, int]] = set()
    for position, text in enumerate(texts):
        first = first_of.setdefault(text, position)
        if first != position:
            pairs.add((first, position))
    distinct = [position for text, position in first_of.items() if text]
    pieces = {position: _pieces(texts[position]) for position in distinct}
    numbers = {position: sorted(_DIGITS.findall(texts[position])) for position in distinct}
    for bucket in _buckets(pieces):
        for place, later in enumerate(bucket):
            for earlier in bucket[max(0, place - _MOST_COMPARED) : place]:
                if (earlier, later) in pairs or numbers[earlier] != numbers[later]:
                    continue
                if _shared(pieces[earlier], pieces[later]) >= LEAST_SHARED:
                    pairs.add((earlier, later))
    return sorted(pairs)


def _pieces(text: str) -> NDArray[np.uint64]:
    """Sorted hashes of a text's pieces."""
    data = [text[start : start + _PIECE] for start in range(max(1, len(text) - _PIECE + 1))]
    hashes = sorted({zlib.crc32(piece.encode()) for piece in data})
    return np.array(hashes[:_MOST_PIECES], dtype=np.uint64)


def _shared(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def _buckets(pieces: Mapping[int, NDArray[np.uint64]]) -> Iterable[list[int]]:
    """Positions with equal values in one band of their signatures, in order."""
    bits = np.random.PCG64(0).random_raw(2 * _BANDS * _ROWS)
    factors = (bits[::2] >> np.uint64(33)) | np.uint64(1)
    offsets = bits[1::2] >> np.uint64(4)
    found: dict[tuple[int, bytes], list[int]] = {}
    for position, hashes in pieces.items():
        values = (hashes[:, None] * factors + offsets) % _PRIME  # (pieces, bands x rows)
        signature = values.min(axis=0).reshape(_BANDS, _ROWS)
        for band, row in enumerate(signature):
            found.setdefault((band, row.tobytes()), []).append(position)
    return [bucket for bucket in found.values() if len(bucket) > 1]
