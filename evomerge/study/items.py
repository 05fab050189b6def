"""Item results as Parquet: a row for each candidate, task, metric and item.

A file holds the results of one candidate and is written completely or not at all. During the race
of a generation, results are kept block by block, beside those of recorded candidates.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evomerge.errors import RunError
from evomerge.evaluate import Candidate, CandidateKey, Cost, Scored, TaskItems
from evomerge.study.storage import DAMAGE, storage_errors, write_whole
from evomerge.study.trial import digest_items, digest_text

_COST, _OF, _SEAL = "cost", "of", "sha256"


class ItemFiles:
    """The item results of a run directory."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._folder = run_dir / "items"

    def write(self, key: CandidateKey, tasks: Mapping[str, TaskItems]) -> None:
        """Write all item results of a candidate. Raises StorageError."""
        self._write(self._path(key), key, Scored(tasks=tasks))

    def find(self, key: CandidateKey, digest: str | None) -> Mapping[str, TaskItems] | None:
        """Item results of a recorded candidate; None if they are lost or damaged.

        digest: of the recorded results; None in old records without digests.
        """
        found = _read(self._path(key))
        if found is None or digest not in (None, digest_items(found.tasks)):
            return None
        return found.tasks

    def read(self, key: CandidateKey, digest: str | None) -> Mapping[str, TaskItems]:
        """Item results of a recorded candidate. Raises RunError if they are lost or damaged."""
        found = self.find(key, digest)
        if found is None:
            path = self._path(key)
            raise RunError(
                f"{path}: the item results of {key} are {_state_of(path)}; "
                f"`evomerge resume {shlex.quote(str(self._run_dir))}` scores them again"
            )
        return found

    def unlike(self, key: CandidateKey) -> RunError:
        """The error for item results that differ from the recorded ones."""
        path = self._path(key)
        return RunError(
            f"{path}: the item results of {key} are {_state_of(path)}, and scored again they "
            "differ; put the file back, or resume where the search began"
        )

    def write_block(self, candidate: Candidate, number: int, outcome: Scored) -> None:
        """Write a candidate's results on one block of items. Raises StorageError.

        candidate: with the items of the block.
        """
        path = self._block_path(candidate.key, number)
        self._write(path, candidate.key, outcome, of=_digest(candidate))

    def read_block(self, candidate: Candidate, number: int) -> Scored | None:
        """A candidate's results on a block, exact to the last bit; None if there are none.

        A file of another candidate with this key, or of other items, is ignored: it is from a
        generation that was started with another budget and never recorded. A damaged file is
        ignored too.
        """
        return _read(self._block_path(candidate.key, number), of=_digest(candidate))

    def forget_blocks(self, key: CandidateKey) -> None:
        """Remove the blocks of a candidate; its record has all their results."""
        with storage_errors(self._run_dir):
            for path in self._folder.glob(f"{key}.block*.parquet"):
                path.unlink(missing_ok=True)

    def _path(self, key: CandidateKey) -> Path:
        return self._folder / f"{key}.parquet"

    def _block_path(self, key: CandidateKey, number: int) -> Path:
        return self._folder / f"{key}.block{number}.parquet"

    def _write(self, path: Path, key: CandidateKey, outcome: Scored, *, of: str = "") -> None:
        cost = json.dumps(asdict(outcome.cost))
        seal = digest_text(digest_items(outcome.tasks), cost, of)
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
        ).replace_schema_metadata({_COST: cost, _OF: of, _SEAL: seal})
        with storage_errors(self._run_dir):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(
                path, lambda temporary: pq.write_table(table, temporary, write_page_checksum=True)
            )


def _digest(candidate: Candidate) -> str:
    """The digest of what was scored in a block: the recipe and the items."""
    items = json.dumps({task: list(ids) for task, ids in candidate.items.items()})
    return hashlib.sha256((candidate.recipe.to_yaml() + items).encode()).hexdigest()


def _state_of(path: Path) -> str:
    return "damaged" if path.exists() else "missing"


def _read(path: Path, *, of: str | None = None) -> Scored | None:
    """The results in a file; None if it is missing, damaged, or of other items than `of`."""
    try:
        # The checksums find damaged pages before they are decoded.
        file = pq.ParquetFile(path, page_checksum_verification=True)
        metadata = file.schema_arrow.metadata or {}
        texts = {key.decode(): text.decode() for key, text in metadata.items()}
        cost, of_file = texts[_COST], texts[_OF]
        if of not in (None, of_file):
            return None
        tasks = _tasks_of(file.read(use_threads=False).to_pydict())
        seal = digest_text(digest_items(tasks), cost, of_file)
        if texts[_SEAL] != seal:
            return None
        return Scored(tasks=tasks, cost=Cost(**json.loads(cost)))
    except DAMAGE:
        return None


def _tasks_of(rows: Mapping[str, Sequence[Any]]) -> Mapping[str, TaskItems]:
    columns: dict[str, dict[str, dict[int, float]]] = {}
    for task, metric, item, value in zip(
        rows["task"], rows["metric"], rows["item"], rows["outcome"], strict=True
    ):
        columns.setdefault(task, {}).setdefault(metric, {})[item] = value
    return {
        task: TaskItems(
            ids=tuple(next(iter(metrics.values()))),
            metrics={metric: tuple(column.values()) for metric, column in metrics.items()},
        )
        for task, metrics in columns.items()
    }
