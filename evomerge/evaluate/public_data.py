"""Rows of a public data set: from a file that the user has, or from the hub by its name.

The shipped tasks over public data sets load their items with it.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from datasets import load_dataset

from evomerge.errors import TaskError, one_line

FOLDER_VARIABLE = "EVOMERGE_DATA"
"""The environment variable that names a folder of data sets."""

Row = dict[str, object]


def public_rows(
    *,
    files: Sequence[str],
    hub: str,
    split: str,
    config: str | None = None,
    columns: Sequence[str] = (),
) -> list[Row]:
    """The rows of a data set, in its order.

    files: possible paths of its file below the folder that EVOMERGE_DATA names: .jsonl, .parquet,
    or .tsv. A .tsv file has no header; `columns` names its columns. The first file that exists is
    read. If none exists, the data set is loaded from the hub. Raises TaskError that names both
    places.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    for name in files if folder else ():
        path = Path(folder or "", name)
        if path.is_file():
            return read_rows(path, columns=columns)
    try:
        return [dict(row) for row in load_dataset(hub, config, split=split)]
    except Exception as error:  # The hub's client raises errors of many libraries.
        missing = f"{folder} has no {files[0]}" if folder else f"{FOLDER_VARIABLE} is not set"
        reason = one_line(f"{type(error).__name__}: {error}")
        raise TaskError(
            f"data set {hub}: cannot be loaded from the hub ({reason}), and {missing}; set "
            f"{FOLDER_VARIABLE} to a folder that has {files[0]}"
        ) from error


def read_rows(path: Path, *, columns: Sequence[str] = ()) -> list[Row]:
    """The rows of one file, in the format of its suffix. Raises TaskError if it cannot be read."""
    try:
        if path.suffix == ".parquet":
            rows: list[Row] = pq.read_table(path).to_pylist()
            return rows
        with path.open(encoding="utf-8", newline="") as lines:
            if path.suffix == ".jsonl":
                return [json.loads(line) for line in lines if line.strip()]
            cells = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            return [dict(zip(columns, row, strict=True)) for row in cells]
    except (OSError, ValueError) as error:
        raise TaskError(f"{path}: cannot be read ({one_line(error)}); check the file") from error
