"""Reads a Parquet file in a process of its own, whose memory and time are limited.

A few kilobytes can hold gigabytes of text, and what a file says of its sizes need not be true:
Arrow believes it. The file is the standard input; each line of the output is JSON: the names of the
columns, then the rows. A sentence instead of a list says what is wrong. This file runs by its path
and imports nothing of evomerge.
"""

from __future__ import annotations

import contextlib
import json
import math
import resource
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_BATCH_ROWS = 256
_LONGEST_S = 300


class RefusedError(Exception):
    """What is wrong with the file, and the mend."""


def read_lists(
    data: bytes, *, most_bytes: int, most_rows: int, most_columns: int
) -> Iterator[list[Any]]:
    """The names of the columns, then the rows. Raises RefusedError, and what Arrow raises."""
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        facts, schema = file.metadata, file.schema_arrow
        _check_facts(facts, most_bytes, most_rows, most_columns)
        texts = [
            field.name
            for field in schema
            if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ]
        names = list(schema.names)
    yield names
    total = count = 0
    # Texts stay as references into their dictionary until their lengths have been added up.
    with pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
            total += sum(_text_bytes(column) for column in batch.columns)
            if total > most_bytes:
                raise _too_large(most_bytes)
            columns = [column.to_pylist() for column in batch.columns]
            for cells in zip(*columns, strict=True):
                count += 1
                if count > most_rows:
                    raise _too_many(most_rows)
                yield [
                    _plain(cell, f"row {count}: '{name[:40]}'")
                    for cell, name in zip(cells, names, strict=True)
                ]
    if count != facts.num_rows:
        raise RefusedError(
            f"says that it has {facts.num_rows:,} rows, and has {count:,}; write it again"
        )


def _check_facts(
    facts: pq.FileMetaData, most_bytes: int, most_rows: int, most_columns: int
) -> None:
    if facts.num_rows > most_rows:
        raise _too_many(most_rows)
    if facts.num_columns > most_columns:
        raise RefusedError(
            f"{facts.num_columns:,} columns, and {most_columns:,} is the limit; keep those with "
            "questions and answers"
        )
    unpacked = sum(
        facts.row_group(group).column(column).total_uncompressed_size
        for group in range(facts.num_row_groups)
        for column in range(facts.num_columns)
    )
    if unpacked > most_bytes:
        raise _too_large(most_bytes)


def _text_bytes(column: pa.Array) -> int:
    """Bytes of a column once every cell has its own text."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary).take(column.indices)
    return int(pc.sum(pc.cast(lengths, pa.int64())).as_py() or 0)


def _plain(cell: Any, where: str) -> Any:
    if isinstance(cell, float) and math.isnan(cell):
        return None
    if isinstance(cell, bytes):
        raise RefusedError(f"{where}: holds bytes, not text; write the column as text")
    if cell is None or isinstance(cell, str | bool | int | float | list | dict):
        return cell
    return str(cell)  # a date, a time, a decimal


def _too_many(most_rows: int) -> RefusedError:
    return RefusedError(
        f"more than {most_rows:,} rows; draw some, a few thousand are enough for any score"
    )


def _too_large(most_bytes: int) -> RefusedError:
    return RefusedError(
        f"more than {most_bytes // 2**20} MiB when unpacked; draw some rows, or keep the columns "
        "with questions and answers"
    )


def _limit_this_process(memory_bytes: int) -> None:
    """Limit what this process takes beyond what it has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        now_bytes = int(file.read().split()[0]) * resource.getpagesize()
    limits = {
        resource.RLIMIT_AS: now_bytes + memory_bytes,
        resource.RLIMIT_CPU: _LONGEST_S,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))


def main() -> None:
    """Read the standard input; the arguments are the most bytes, rows, columns and memory."""
    most_bytes, most_rows, most_columns, memory_bytes = map(int, sys.argv[1:])
    with contextlib.suppress(OSError):  # no /proc, as on macOS
        _limit_this_process(memory_bytes)
    data = sys.stdin.buffer.read()
    try:
        for cells in read_lists(
            data, most_bytes=most_bytes, most_rows=most_rows, most_columns=most_columns
        ):
            sys.stdout.write(f"{json.dumps(cells, default=str)}\n")
    except RefusedError as refused:
        print(json.dumps(str(refused)))
    except MemoryError:
        print(json.dumps(str(_too_large(most_bytes))))
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        print(json.dumps(f"cannot be read as Parquet ({reason}); write it again"))


if __name__ == "__main__":
    main()
