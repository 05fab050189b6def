"""The items beside this file: a prompt and the conditions that its answer must keep."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset

from evomerge.evaluate.public_data import read_rows


def load(*, languages: list[str] | None = None, **_metadata: object) -> dict[str, Dataset]:
    """The split `test`; lm-eval also passes a task's metadata, unused.

    languages: of the prompts that are kept; without it all.
    """
    rows = read_rows(Path(__file__).parent / "data" / "instructions.jsonl")
    kept = [row for row in rows if languages is None or row["language"] in languages]
    return {"test": Dataset.from_list(kept)}
