"""Small tables of questions, one for each kind of answer, and answers that a model may say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@dataclass(frozen=True, kw_only=True)
class Example:
    """Right answers of a kind, what is said, and the scores by the first metric."""

    right: tuple[Any, ...]
    said: tuple[str, ...]
    scores: tuple[float, ...]

    def rows(self) -> list[Row]:
        """A row for each right answer."""
        return [
            {"question": f"what is {number} {{{{ 7 * 7 }}}} ?", "answer": answer}
            for number, answer in enumerate(self.right)
        ]


GENERATED: Mapping[str, Example] = {
    "exact": Example(
        right=("red", "blue", "[1,2]", "12", "{{ red }}"),
        said=(" red ", "Blue", "[1,2]", "12", "red"),
        scores=(1.0, 0.0, 1.0, 1.0, 0.0),
    ),
    "number": Example(
        right=("18", "1,000", "-3", "so 2\n#### 2.5"),
        said=("it is 18.0", "1000 or 3", "minus -3.", "2.50"),
        scores=(1.0, 0.0, 1.0, 1.0),
    ),
    "json": Example(
        right=({"a": 1, "b": "x"}, {"a": 2, "b": "y"}, {"a": 3, "b": "z"}),
        said=('so {"b": "x", "a": 1.0}', '{"a": 2}', "a is 3"),
        scores=(1.0, 0.5, 0.0),
    ),
    "contains": Example(
        right=(["red", "blue"], ["red"], ["green"]),
        said=("Blue and RED", "rose", "the green one"),
        scores=(1.0, 0.0, 1.0),
    ),
    "regex": Example(
        right=("^a+$", "/b/", "^(?i:yes)$", "/ye+s/"),
        said=(" aa ", "ac", "YES", "so yees"),
        scores=(1.0, 0.0, 1.0, 1.0),
    ),
}

CHOICES: Sequence[Row] = [
    {
        "question": f"what is {one} plus {two} ?",
        "A": "one two",
        "B": "three",
        "C": "cat dog bird" if one == two else "",
        "D": "ten",
        "answer": "ABD"[place % 3],
    }
    for place, (one, two) in enumerate(
        (one, two) for one in ("one", "two", "six", "ten") for two in ("one", "two", "six", "ten")
    )
]
