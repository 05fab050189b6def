"""Writes the items of examples/smollm2 as data of its tasks: what no expert was trained on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from smollm2.items import SKILLS, draw, text_of

TRAINED = ("problems", "json", "desks")
TRAINING_ITEMS = 4000
"""At least as many as any expert is trained on."""
TEST_ITEMS = {"problems": 160, "json": 160, "desks": 160, "problems_json": 600}
"""Most for the task that is searched for; half of them are test items of the job."""


def write_items(folder: Path) -> None:
    """Write NAME.jsonl for every task; questions of training items are left out."""
    seen = frozenset(
        text_of(item.question)
        for skill in TRAINED
        for item in draw(skill, TRAINING_ITEMS, test=False)
    )
    for skill in SKILLS:
        items = draw(skill, TEST_ITEMS[skill], test=True, without=seen)
        lines = [json.dumps({"question": i.question, "answer": i.answer}) for i in items]
        (folder / f"{skill}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_items(Path(sys.argv[1]))
