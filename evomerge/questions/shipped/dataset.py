"""Loads the items and few-shot examples that lie beside this file, wherever a command runs."""

from __future__ import annotations

import json
from pathlib import Path

from datasets import Dataset


def load(**_metadata: object) -> dict[str, Dataset]:
    """The split `test`, and `examples` where there are few-shot examples."""
    splits = {"test": "items.jsonl", "examples": "examples.jsonl"}
    return {
        split: Dataset.from_list(
            # Not splitlines: a text may hold the other line breaks of Unicode.
            [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        )
        for split, name in splits.items()
        if (path := Path(__file__).parent / name).is_file()
    }
