"""Three sums and a name, asked in English."""

from __future__ import annotations

from datasets import Dataset


def load(**_metadata: object) -> dict[str, Dataset]:
    items = [("2 + 3", "5"), ("40 + 2", "42"), ("900 + 100", "1000"), ("7 + 0", "7")]
    return {"test": Dataset.from_list([{"question": q, "answer": a} for q, a in items])}
