"""Finds questions that are almost the same: by words, then by pieces (MinHash, Broder 1997).

Two questions with different numbers are never almost the same: they ask for different answers.
"""

from __future__ import annotations

import functools
import re
import unicodedata
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_PIECE = 5
"""Characters of a piece of text."""

_BANDS, _ROWS = 16, 4
"""A pair that shares 0.85 of its pieces is missed with probability (1 - 0.85^4)^16 = 6e-6."""

LEAST_SHARED = 0.85
"""Share of their pieces (Jaccard) that two questions have in common to be almost the same."""

_MOST_PIECES = 1_000
"""Pieces kept of a long text: those with the smallest hashes, which are alike for alike texts."""

_NEAREST, _NEAREST_OF_MANY = 20, 6
"""Earlier questions of one band's bucket that each is paired with, and that of a large bucket:
questions of one form fill some buckets, and tell little there."""

_MANY = 50
"""Questions of a large bucket."""

_MOST_COMPARED = 10
"""Pairs of one question that are compared piece by piece."""

_CHUNK = 100_000
"""Pairs whose signatures are compared at a time."""

_KEPT_TEXTS = 4_096
"""Texts whose pieces are kept while pairs are compared, some 8 KB each at most."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
_DIGITS = re.compile(r"\d+")
_NOT_OF_A_WORD = re.compile(r"[\W_]+")


def plain_text(parts: Iterable[str]) -> str:
    """Texts as one, without case, punctuation and repeated spaces, for comparison."""
    text = unicodedata.normalize("NFKC", "\n".join(parts)).casefold()
    return _NOT_OF_A_WORD.sub(" ", text).strip()


def similar_pairs(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of positions whose texts are almost the same, each question with the first alike.

    texts: as plain_text gives them. Pairs are sorted; the first position is the smaller.
    """
    first_of: dict[str, int] = {}
    pairs: list[tuple[int, int]] = []
    for position, text in enumerate(texts):
        first = first_of.setdefault(text, position)
        if first != position:
            pairs.append((first, position))
    distinct = [position for text, position in first_of.items() if text]

    @functools.lru_cache(maxsize=_KEPT_TEXTS)
    def compared(place: int) -> tuple[NDArray[np.uint64], list[str]]:
        text = texts[distinct[place]]
        return _pieces(text), _numbers(text)

    for earlier, later in _candidates([texts[position] for position in distinct]):
        (pieces, numbers), (others, other_numbers) = compared(earlier), compared(later)
        if numbers == other_numbers and _shared(pieces, others) >= LEAST_SHARED:
            pairs.append((distinct[earlier], distinct[later]))
    return sorted(pairs)


def _numbers(text: str) -> list[str]:
    return sorted(_DIGITS.findall(text))


def _pieces(text: str) -> NDArray[np.uint64]:
    """Sorted hashes of a text's pieces."""
    signs = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    count = max(1, len(signs) - _PIECE + 1)
    hashes = np.zeros(count, dtype=np.uint64)
    for place in range(min(_PIECE, len(signs))):
        hashes = (hashes + signs[place : place + count]) * _MIX
        hashes ^= hashes >> np.uint64(29)
    return np.unique(hashes)[:_MOST_PIECES]


def _shared(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def _candidates(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of positions with equal values in a band of their signatures, the later's nearest."""
    if len(texts) < 2:
        return []
    count = np.int64(len(texts))
    found = [np.empty(0, dtype=np.int64)]
    signatures = _signatures(texts)
    for band in signatures.T:
        order = np.argsort(band, kind="stable")  # equal values keep their order
        values = band[order]
        _, places, sizes = np.unique(values, return_inverse=True, return_counts=True)
        most = np.where(sizes > _MANY, _NEAREST_OF_MANY, _NEAREST)[places]
        for shift in range(1, min(_NEAREST + 1, len(texts))):
            same = (values[shift:] == values[:-shift]) & (shift <= most[shift:])
            if not same.any():
                break
            found.append(order[:-shift][same] * count + order[shift:][same])
    earlier, later = np.divmod(np.unique(np.concatenate(found)), count)
    alike = np.concatenate(
        [
            (signatures[earlier[start:end]] == signatures[later[start:end]]).sum(axis=1)
            for start in range(0, len(later) or 1, _CHUNK)
            for end in (start + _CHUNK,)
        ]
    )
    # Of each question's pairs those first that agree in the most bands: they are the likest.
    order = np.lexsort((earlier, -alike, later))
    earlier, later = earlier[order], later[order]
    rank = np.arange(len(later)) - np.searchsorted(later, later)
    kept = rank < _MOST_COMPARED
    return list(zip(earlier[kept].tolist(), later[kept].tolist(), strict=True))


def _signatures(texts: Sequence[str]) -> NDArray[np.uint64]:
    """The bands of each text's signature as one number each: (texts, bands).

    Texts with different numbers have different bands.
    """
    bits = np.random.PCG64(0).random_raw(2 * _BANDS * _ROWS)
    factors, offsets = bits[::2] | np.uint64(1), bits[1::2]
    signatures = np.empty((len(texts), _BANDS), dtype=np.uint64)
    for position, text in enumerate(texts):
        # The sums wrap around, as those of multiply-shift hashing do.
        least = (_pieces(text)[:, None] * factors + offsets).min(axis=0)  # (bands x rows,)
        band = np.full(_BANDS, zlib.crc32(" ".join(_numbers(text)).encode()), dtype=np.uint64)
        for row in least.reshape(_BANDS, _ROWS).T:
            band = (band ^ row) * _MIX
            band ^= band >> np.uint64(29)
        signatures[position] = band
    return signatures
