"""Answers of models as Parquet, one file a candidate: a row for each task and item.

They are for looking only. A file that is lost or damaged is noticed and named, and nothing that a
search or an export needs depends on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evomerge.errors import RunError
from evomerge.evaluate import Answers, CandidateKey, ItemAnswer, Question, TaskAnswers
from evomerge.study.storage import DAMAGE, storage_errors, write_whole
from evomerge.study.trial import digest_text

LIMIT_BYTES = 256 * 2**20
"""Of the files of one run. Where one more would not fit, it is written without its texts."""

_MOST_ROWS = 2**22
_ROWS_AT_ONCE = 64

_LOWER = "lower_is_better"
_TEXTS, _NUMBERS = pa.list_(pa.string()), pa.list_(pa.float64())
_COLUMNS = pa.schema(
    {
        "task": pa.dictionary(pa.int32(), pa.string()),
        "item": pa.int32(),
        "prompt": pa.string(),
        "target": pa.string(),
        "choices": _TEXTS,
        "text": pa.string(),
        "characters": pa.int64(),
        "tokens": pa.int64(),
        "cut": pa.bool_(),
        "loglikelihoods": _NUMBERS,
    }
)
_REPEATED = ["task", "target", "choices.list.element", "text", "characters", "tokens"]
"""Columns that hold few different values."""


class AnswerFiles:
    """The answers in a run directory. limit_bytes: of all files together."""

    def __init__(self, run_dir: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._run_dir = run_dir
        self._folder = run_dir / "answers"
        self._limit_bytes = limit_bytes

    def fitting(self, key: CandidateKey, answers: Answers) -> Answers:
        """The answers as they can be kept beside the others: without texts once the room is used.

        Token counts and log-likelihoods are always kept.
        """
        path = self._path(key)
        with storage_errors(self._run_dir):
            others = [file for file in self._folder.glob("*.parquet") if file != path]
            used = sum(_size_on_disk(file) for file in others)
        if used + _size_of(answers) <= self._limit_bytes:
            return answers
        return {
            task: replace(
                kept, items=tuple(replace(each, question=None, text=None) for each in kept.items)
            )
            for task, kept in answers.items()
        }

    def write(self, key: CandidateKey, answers: Answers) -> None:
        """Write the answers of a candidate. Raises StorageError."""
        rows = [(task, answer) for task, kept in answers.items() for answer in kept.items]
        given = [answer for _, answer in rows]
        asked = [answer.question for answer in given]
        lower = json.dumps({task: kept.lower_is_better for task, kept in answers.items()})
        table = pa.table(
            {
                "task": pa.array([task for task, _ in rows], pa.string()).dictionary_encode(),
                "item": [answer.item for answer in given],
                "prompt": [each and each.prompt for each in asked],
                "target": [each and each.target for each in asked],
                "choices": [each and each.choices for each in asked],
                "text": [answer.text for answer in given],
                "characters": [answer.characters for answer in given],
                "tokens": [answer.tokens for answer in given],
                "cut": [answer.cut for answer in given],
                "loglikelihoods": [answer.loglikelihoods for answer in given],
            },
            schema=_COLUMNS.with_metadata({_LOWER: lower}),
        )
        path = self._path(key)
        with storage_errors(self._run_dir):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(
                path,
                lambda temporary: pq.write_table(
                    table,
                    temporary,
                    compression="zstd",
                    compression_level=9,  # a third less than the encodings and level of a default
                    use_dictionary=_REPEATED,
                    column_encoding={"item": "DELTA_BINARY_PACKED"},
                    write_page_checksum=True,
                ),
            )

    def read(self, key: CandidateKey, digest: str) -> Answers:
        """The answers of a candidate. Raises RunError if they are lost or damaged.

        digest: of the recorded answers.
        """
        path = self._path(key)
        found = _read(path, digest)
        if found is None:
            state = "damaged" if path.exists() else "missing"
            raise RunError(
                f"{path}: the answers of {key} are {state}; put the file back (scores and exports "
                "do not need it)"
            )
        return found

    def _path(self, key: CandidateKey) -> Path:
        return self._folder / f"{key}.parquet"


def digest_answers(answers: Answers) -> str:
    """The digest of answers, exact to the last bit."""
    rows = [
        [task, list(kept.lower_is_better), [_plain(answer) for answer in kept.items]]
        for task, kept in answers.items()
    ]
    return digest_text(json.dumps(rows))


def _plain(answer: ItemAnswer) -> list[Any]:
    asked = answer.question
    return [
        answer.item,
        None if asked is None else [asked.prompt, asked.target, list(asked.choices)],
        answer.text,
        answer.characters,
        answer.tokens,
        answer.cut,
        list(answer.loglikelihoods),
    ]


def _size_of(answers: Answers) -> int:
    """Bytes of a file with these answers, roughly, and never less: nothing is compressed."""
    return sum(
        len(json.dumps(_plain(answer), ensure_ascii=False).encode())
        for kept in answers.values()
        for answer in kept.items
    )


def _size_on_disk(path: Path) -> int:
    """Bytes of a file; 0 if it is gone, which stops no search."""
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _read(path: Path, digest: str) -> Answers | None:
    """The answers in a file; None if it is missing, or they are not those of the digest.

    The file may be a stranger's, and their digest too: anything but a regular file with our columns
    and within our limits is refused before it takes room or time.
    """
    try:
        if not path.is_file() or path.stat().st_size > LIMIT_BYTES:
            return None
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if not file.schema_arrow.equals(_COLUMNS) or file.metadata.num_rows > _MOST_ROWS:
                return None
            lower = json.loads((file.schema_arrow.metadata or {})[_LOWER.encode()])
            found = _answers_of(_rows_of(file), lower)
        return found if digest_answers(found) == digest else None
    except DAMAGE:
        return None


def _rows_of(file: pq.ParquetFile) -> Iterator[Mapping[str, Any]]:
    """The rows of a file, a few at once. Raises ValueError if they take more room than a run has.

    A small file may hold the same long text a million times.
    """
    used = 0
    for batch in file.iter_batches(_ROWS_AT_ONCE):
        used += batch.nbytes
        if used > LIMIT_BYTES:
            raise ValueError(f"more than {LIMIT_BYTES:,} bytes of answers")
        yield from batch.to_pylist()


def _answers_of(
    rows: Iterable[Mapping[str, Any]], lower: Mapping[str, Sequence[str]]
) -> dict[str, TaskAnswers]:
    if not all(isinstance(name, str) for names in lower.values() for name in names):
        raise ValueError("a metric without a name")
    items: dict[str, list[ItemAnswer]] = {task: [] for task in lower}
    for row in rows:
        question = None
        if row["prompt"] is not None:
            question = Question(
                prompt=row["prompt"], target=row["target"], choices=tuple(row["choices"])
            )
            if None in (question.target, *question.choices):
                raise ValueError("a question with a part missing")
        if None in (row["item"], *row["loglikelihoods"]):
            raise ValueError("an answer with a part missing")
        items[row["task"]].append(
            ItemAnswer(
                item=row["item"],
                question=question,
                text=row["text"],
                characters=row["characters"],
                tokens=row["tokens"],
                cut=row["cut"],
                loglikelihoods=tuple(row["loglikelihoods"]),
            )
        )
    return {
        task: TaskAnswers(items=tuple(kept), lower_is_better=tuple(lower[task]))
        for task, kept in items.items()
    }
