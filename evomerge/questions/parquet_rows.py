"""Rows of a Parquet file, which a process of its own reads: see parquet_process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from evomerge.errors import TaskError, one_line
from evomerge.questions.table import LARGEST_BYTES, MOST_COLUMNS, MOST_ROWS, Rows

_READER = Path(__file__).with_name("parquet_process.py")
_MEMORY_BYTES = 3 * 2**29


def read_parquet(data: bytes, *, where: str) -> Rows:
    """Read the bytes of a Parquet file. Raises TaskError in one line."""
    limits = (LARGEST_BYTES, MOST_ROWS, MOST_COLUMNS, _MEMORY_BYTES)
    ended = subprocess.run(
        # -P: the files beside the reader are no libraries.
        [sys.executable, "-P", str(_READER), *map(str, limits)],
        input=data,
        capture_output=True,
        check=False,
        # Other allocators take address space in advance, which is what is limited.
        env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"},
    )
    if ended.returncode != 0:
        raise TaskError(
            f"{where}: cannot be read as Parquet within its limits of memory and time; write it "
            "again, with the columns of questions and answers alone"
        )
    columns, *rows = map(json.loads, ended.stdout.splitlines())
    for found in (columns, *rows[-1:]):
        if isinstance(found, str):
            raise TaskError(f"{where}: {one_line(found)}")
    return Rows(
        columns=columns, rows=rows, places=[f"row {number + 1}" for number in range(len(rows))]
    )
