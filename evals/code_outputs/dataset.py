"""Items that ask for a function's value: those beside this file, and CRUXEval's."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset

from evomerge.evaluate.public_data import public_rows, read_rows

_FIELDS = ("code", "input", "output")


def load(**_metadata: object) -> dict[str, Dataset]:
    """The split `test` of our own items; lm-eval also passes a task's metadata, unused."""
    rows = read_rows(Path(__file__).parent / "data" / "code_outputs.jsonl")
    return {"test": Dataset.from_list(rows)}


def load_cruxeval(**_metadata: object) -> dict[str, Dataset]:
    """The split `test` of CRUXEval (Gu et al. 2024), from a file or from the hub."""
    rows = public_rows(
        files=("cruxeval/cruxeval.jsonl", "cruxeval/test.jsonl"),
        hub="cruxeval-org/cruxeval",
        split="test",
    )
    return {"test": Dataset.from_list([{key: str(row[key]) for key in _FIELDS} for row in rows])}
