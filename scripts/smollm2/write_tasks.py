"""Writes the items of examples/smollm2 as data of its tasks: what no expert was trained on."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from smollm2.items import SKILLS, Item, draw, text_of

TRAINED = ("problems", "json", "desks")
TRAINING_ITEMS = 4000
"""At least as many as any expert is trained on."""
TEST_ITEMS = {"problems": 80, "json": 80, "desks": 80, "problems_json": 600}
"""Most for the task that is searched for; half of them are test items of the job."""
HELD_OUT_ITEMS = {"problems": 1020, "json": 1020, "desks": 1020, "problems_json": 2040}
"""Further items, which no search reads: the folder `held_out` of the data."""


def write_items(folder: Path) -> None:
    """Write NAME.jsonl and held_out/NAME.jsonl for every task.

    Questions of training items are left out, and no question is in both files.
    """
    seen = frozenset(
        text_of(item.question)
        for skill in TRAINED
        for item in draw(skill, TRAINING_ITEMS, test=False)
    )
    for skill in SKILLS:
        count = TEST_ITEMS[skill]
        items = draw(skill, count + HELD_OUT_ITEMS[skill], test=True, without=seen)
        _write(folder / f"{skill}.jsonl", items[:count])
        _write(folder / "held_out" / f"{skill}.jsonl", items[count:])


def _write(path: Path, items: Sequence[Item]) -> None:
    path.parent.mkdir(exist_ok=True)
    lines = [json.dumps({"question": item.question, "answer": item.answer}) for item in items]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_items(Path(sys.argv[1]))
