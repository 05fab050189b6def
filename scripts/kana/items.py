"""Writes the evaluation items as JSON lines, one file a task."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from kana.problems import EVALUATED_ITEMS, SKILLS, Item, held_out


def write_items(folder: Path) -> dict[str, int]:
    """Write `<skill>.jsonl` for every skill; returns how many items each has.

    The same problems give the same bytes on every machine: nothing here reads a clock or a global
    random state.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for name in SKILLS:
        items = held_out(name, "evaluation", EVALUATED_ITEMS)
        lines = [json.dumps(_fields(name, item), ensure_ascii=False) + "\n" for item in items]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        counts[name] = len(items)
    return counts


def _fields(name: str, item: Item) -> dict[str, str]:
    """What a task reads: the other language's spelling only where the answer's language counts."""
    fields = asdict(item)
    if name not in ("arithmetic_ja", "counting_ja"):
        del fields["other"]
    return fields
