"""Rows of a Parquet file, read within bounds: a few kilobytes can hold gigabytes of text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evomerge.errors import TaskError, one_line
from evomerge.questions.table import LARGEST_BYTES, MOST_COLUMNS, Rows, check_row_count

_BATCH_ROWS = 256


def read_parquet(data: bytes, *, where: str) -> Rows:
    """Read the bytes of a Parquet file. Raises TaskError in one line."""
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            check_row_count(file.metadata.num_rows, where)
            _check_size(file.metadata, where)
            texts = [
                field.name
                for field in file.schema_arrow
                if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
            ]
        # Texts stay as references into their dictionary until their lengths have been added up.
        with pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts) as file:
            columns = list(file.schema_arrow.names)
            rows = list(_rows(file, where))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TaskError(
            f"{where}: cannot be read as Parquet ({one_line(error)}); write it again"
        ) from error
    return Rows(
        columns=columns, rows=rows, places=[f"row {number + 1}" for number in range(len(rows))]
    )


def _check_size(facts: pq.FileMetaData, where: str) -> None:
    if facts.num_columns > MOST_COLUMNS:
        raise TaskError(
            f"{where}: {facts.num_columns:,} columns, and {MOST_COLUMNS:,} is the limit; keep "
            "those with questions and answers"
        )
    unpacked = sum(
        facts.row_group(group).column(column).total_uncompressed_size
        for group in range(facts.num_row_groups)
        for column in range(facts.num_columns)
    )
    if unpacked > LARGEST_BYTES:
        raise _too_large(where)


def _rows(file: pq.ParquetFile, where: str) -> Iterator[list[Any]]:
    total = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS):
        total += sum(_text_bytes(column) for column in batch.columns)
        if total > LARGEST_BYTES:
            raise _too_large(where)
        columns = [column.to_pylist() for column in batch.columns]
        for cells in zip(*columns, strict=True):
            yield [_plain(cell) for cell in cells]


def _text_bytes(column: pa.Array) -> int:
    """Bytes of a column once every cell has its own text."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary).take(column.indices)
    return int(pc.sum(pc.cast(lengths, pa.int64())).as_py() or 0)


def _plain(cell: Any) -> Any:
    if isinstance(cell, float) and math.isnan(cell):
        return None
    if cell is None or isinstance(cell, str | bool | int | float | bytes | list | dict):
        return cell
    return str(cell)  # a date, a time, a decimal


def _too_large(where: str) -> TaskError:
    return TaskError(
        f"{where}: more than {LARGEST_BYTES // 2**20} MiB when unpacked; draw some rows, or keep "
        "the columns with questions and answers"
    )
