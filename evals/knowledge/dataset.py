"""Multiple-choice questions of ARC and MMLU, from files that the user has or from the hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import Dataset

from evomerge.evaluate.public_data import public_rows


def load_arc(**_metadata: object) -> dict[str, Dataset]:
    """ARC-Challenge's test questions in the split `test`."""
    rows: list[dict[str, Any]] = public_rows(
        files=("arc/ARC-Challenge-Test.jsonl", "arc/arc_challenge_test.parquet"),
        hub="allenai/ai2_arc",
        config="ARC-Challenge",
        split="test",
    )
    return {"test": Dataset.from_list([_arc_item(row) for row in rows])}


def load_mmlu(**_metadata: object) -> dict[str, Dataset]:
    """MMLU's test questions of all 57 subjects in the split `test`."""
    rows: list[dict[str, Any]] = public_rows(
        files=("mmlu/test.jsonl", "mmlu/test.parquet"),
        hub="cais/mmlu",
        config="all",
        split="test",
    )
    return {
        "test": Dataset.from_list(
            [
                {
                    "question": str(row["question"]).strip(),
                    "choices": [str(choice) for choice in row["choices"]],
                    "right": int(row["answer"]),
                }
                for row in rows
            ]
        )
    }


def _arc_item(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the hub has it, or as the data set's own files do (`stem` and listed choices)."""
    asked = row["question"]
    if isinstance(asked, Mapping):
        stem, listed = asked["stem"], asked["choices"]
        texts, labels = ([choice[key] for choice in listed] for key in ("text", "label"))
    else:
        stem, texts, labels = asked, row["choices"]["text"], row["choices"]["label"]
    return {
        "question": str(stem).strip(),
        "choices": list(texts),
        "right": list(labels).index(row["answerKey"]),
    }
