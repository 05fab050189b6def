"""The records in a `.wandb` file, which Weights & Biases writes and gives no way to read.

Its format is LevelDB's log: blocks of 32 KiB after seven bytes of its own, and in them chunks, each
with a checksum, a length and a kind. A record is one chunk, or a first, some middle and a last one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_OWN = b":W&B"
_OWN_BYTES = 7
_BLOCK_BYTES = 32768
_HEADER_BYTES = 7
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def records(content: bytes) -> Iterator[bytes]:
    """The whole records of a file; what a kill cut short at its end is left out."""
    if not content.startswith(_OWN):
        return
    begun, place = b"", _OWN_BYTES
    while place + _HEADER_BYTES <= len(content):
        left = _BLOCK_BYTES - place % _BLOCK_BYTES
        if left < _HEADER_BYTES:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        end = place + _HEADER_BYTES + length
        if kind not in (_WHOLE, _FIRST, _MIDDLE, _LAST) or end > len(content):
            return
        chunk = content[place + _HEADER_BYTES : end]
        begun = chunk if kind in (_WHOLE, _FIRST) else begun + chunk
        place = end
        if kind in (_WHOLE, _LAST):
            yield begun
