"""Loads the items that lie beside this file, whatever the current directory is.

lm-eval resolves a relative `data_files` against the current directory; this resolves it against the
task folder, and needs neither the network nor a cache.
"""

from __future__ import annotations

import json
from pathlib import Path

from datasets import Dataset


def load(*, items: str, **_metadata: object) -> dict[str, Dataset]:
    """The split `test` of `data/<items>.jsonl`; lm-eval also passes a task's metadata, unused."""
    path = Path(__file__).parent / "data" / f"{items}.jsonl"
    with path.open(encoding="utf-8") as lines:
        return {"test": Dataset.from_list([json.loads(line) for line in lines])}
