"""Writes `data/instructions.jsonl`: every request with some of the instructions of its language.

    python evals/instructions/generate.py

No chance is in it: instructions go round in their order, so each is asked about equally often.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

FOLDER = Path(__file__).parent
ITEMS_PER_REQUEST = 4
"""Items of each request; every second one carries a second instruction."""


def items() -> Iterator[dict[str, str]]:
    """Items: the prompt, its language, and its conditions as JSON."""
    written = yaml.safe_load((FOLDER / "requests.yaml").read_text(encoding="utf-8"))
    for language, tables in written.items():
        space = "" if language == "ja" else " "
        turns = 0
        for request in tables["requests"]:
            for _ in range(ITEMS_PER_REQUEST):
                said, conditions = tables["main"][turns % len(tables["main"])]
                parts = [request, said]
                if turns % 2:
                    also, more = tables["also"][turns // 2 % len(tables["also"])]
                    # Two limits of one kind, or words of another language, cannot both be kept.
                    if _agree(conditions, more):
                        parts.append(also)
                        conditions = [*conditions, *more]
                turns += 1
                yield {
                    "prompt": space.join(parts),
                    "language": language,
                    "conditions": json.dumps(conditions, ensure_ascii=False),
                }


def _agree(conditions: list[dict[str, object]], more: list[dict[str, object]]) -> bool:
    """Whether an answer can keep both."""
    structured = any(one.get("format") == "json" for one in conditions)
    lengths = any("length" in one for one in conditions) and any("length" in one for one in more)
    foreign = any(one.get("language") == "en" for one in conditions) and any(
        one.get("format") == "regex" for one in more
    )
    return not (structured or lengths or foreign)


def text() -> str:
    """The file, an item a line."""
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items())


if __name__ == "__main__":
    path = FOLDER / "data" / "instructions.jsonl"
    path.write_text(text(), encoding="utf-8")
    print(f"{path}: {text().count(chr(10))} items")
