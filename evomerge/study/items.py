"""Item results as Parquet: a row for each candidate, task, metric and item.

A file holds the results of one candidate, written whole or not at all. What a generation has of a
candidate before its race is over is kept block by block, beside the results of those recorded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from evomerge.candidate import Candidate, CandidateKey, Cost, Scored, TaskItems
from evomerge.errors import RunError
from evomerge.study.storage import storage_errors, write_whole

_COST = b"cost"
_OF = b"of"


class ItemFiles:
    """The item results of a run directory."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._folder = run_dir / "items"

    def write(self, key: CandidateKey, tasks: Mapping[str, TaskItems]) -> None:
        """Keep all that a candidate was scored on. Raises StorageError."""
        self._write(self._path(key), key, Scored(tasks=tasks))

    def read(self, key: CandidateKey) -> Mapping[str, TaskItems]:
        """Item results of a recorded candidate. Raises RunError when the file is gone."""
        return _read(self._path(key), key).tasks

    def write_block(self, candidate: Candidate, number: int, outcome: Scored) -> None:
        """Keep what one block of a generation said of a candidate. Raises StorageError.

        candidate: with the items of the block.
        """
        path = self._block_path(candidate.key, number)
        self._write(path, candidate.key, outcome, of=_digest(candidate))

    def read_block(self, candidate: Candidate, number: int) -> Scored | None:
        """What a block said of a candidate, to the last bit; None where it is not kept.

        What is kept of another candidate under the key, or of other items, is of a generation that
        was begun under another budget and never recorded: it is no part of the search.
        """
        path = self._block_path(candidate.key, number)
        if not path.exists() or pq.read_schema(path).metadata.get(_OF) != _digest(candidate):
            return None
        return _read(path, candidate.key)

    def forget_blocks(self, key: CandidateKey) -> None:
        """Blocks of a candidate whose results are all in its record."""
        with storage_errors(self._run_dir):
            for path in self._folder.glob(f"{key}.block*.parquet"):
                path.unlink(missing_ok=True)

    def _path(self, key: CandidateKey) -> Path:
        return self._folder / f"{key}.parquet"

    def _block_path(self, key: CandidateKey, number: int) -> Path:
        return self._folder / f"{key}.block{number}.parquet"

    def _write(self, path: Path, key: CandidateKey, outcome: Scored, *, of: bytes = b"") -> None:
        rows = [
            (task, metric, item, value)
            for task, items in outcome.tasks.items()
            for metric, values in items.metrics.items()
            for item, value in zip(items.ids, values, strict=True)
        ]
        names, metrics, ids, values = zip(*rows, strict=True)
        table = pa.table(
            {
                "candidate": pa.array([str(key)] * len(rows)).dictionary_encode(),
                "task": pa.array(names).dictionary_encode(),
                "metric": pa.array(metrics).dictionary_encode(),
                "item": pa.array(ids, pa.int32()),
                "outcome": pa.array(values, pa.float64()),
            }
        ).replace_schema_metadata({_COST: json.dumps(asdict(outcome.cost)).encode(), _OF: of})
        with storage_errors(self._run_dir):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, lambda temporary: pq.write_table(table, temporary))


def _digest(candidate: Candidate) -> bytes:
    """Of what a block was scored: the recipe and the items."""
    items = json.dumps({task: list(ids) for task, ids in candidate.items.items()})
    return hashlib.sha256((candidate.recipe.to_yaml() + items).encode()).hexdigest().encode()


def _read(path: Path, key: CandidateKey) -> Scored:
    try:
        table = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowInvalid) as error:
        raise RunError(
            f"{path}: the item results of {key} cannot be read ({error}); restore the file"
        ) from error
    rows = table.to_pydict()
    columns: dict[str, dict[str, dict[int, float]]] = {}
    for task, metric, item, value in zip(
        rows["task"], rows["metric"], rows["item"], rows["outcome"], strict=True
    ):
        columns.setdefault(task, {}).setdefault(metric, {})[item] = value
    tasks = {
        task: TaskItems(
            ids=tuple(next(iter(metrics.values()))),
            metrics={metric: tuple(column.values()) for metric, column in metrics.items()},
        )
        for task, metrics in columns.items()
    }
    written = (table.schema.metadata or {}).get(_COST)
    return Scored(tasks=tasks, cost=Cost(**json.loads(written)) if written else Cost())
