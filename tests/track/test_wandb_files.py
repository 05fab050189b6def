"""The records in a `.wandb` file, whole or cut short by a kill."""

from __future__ import annotations

import struct

from evomerge.track.wandb_files import records

BLOCK = 32768
SHORT, LONG, LAST = b"short", bytes(range(256)) * 400, b"last"  # LONG takes four blocks


def written(*contents: bytes) -> bytes:
    """A file as LevelDB's log has it; readers here do not look at the checksums."""
    file = b":W&B" + bytes(3)
    for content in contents:
        begin = 0
        while True:
            room = BLOCK - len(file) % BLOCK
            if room < 7:
                file += bytes(room)
                continue
            chunk = content[begin : begin + room - 7]
            ends = begin + len(chunk) == len(content)
            kind = (1 if ends else 2) if begin == 0 else (4 if ends else 3)
            file += struct.pack("<IHB", 0, len(chunk), kind) + chunk
            begin += len(chunk)
            if ends:
                break
    return file


def test_records_are_read_over_the_ends_of_blocks() -> None:
    file = written(SHORT, LONG, LAST)
    assert len(file) > 3 * BLOCK
    assert list(records(file)) == [SHORT, LONG, LAST]
    padded = b"x" * (BLOCK - 7 - 7 - 7 - 3)  # leaves no room for a header in its block
    assert list(records(written(SHORT[:0], padded, LAST))) == [b"", padded, LAST]


def test_what_a_kill_cut_short_is_left_out() -> None:
    file = written(SHORT, LONG, LAST)
    assert list(records(file[:-1])) == [SHORT, LONG]
    assert list(records(file[: 2 * BLOCK])) == [SHORT]
    assert list(records(file[:7])) == []
    assert list(records(b"no such file")) == []
    assert list(records(file + bytes(BLOCK))) == [SHORT, LONG, LAST], "zeros of a lost power"
