"""Scores answers by the fields of their JSON object, one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

_LONGEST_CHARACTERS = 100_000


def score(doc: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """Score the first JSON object of an answer; text or a code fence around it does not count.

    `valid_json`: there is one. `right_fields`: the share of the fields asked for that have the
    right value; `1` and `1.0` are the same, `1` and `true` or `"1"` are not, and spaces around
    texts do not count. `all_right`: all of them, and no other field.
    """
    wanted = json.loads(doc["answer"])
    said = read_object(results[0])
    if said is None:
        return {"valid_json": 0.0, "right_fields": 0.0, "all_right": 0.0}
    right = sum(key in said and same(said[key], value) for key, value in wanted.items())
    return {
        "valid_json": 1.0,
        "right_fields": right / len(wanted),
        "all_right": float(right == len(wanted) and said.keys() == wanted.keys()),
    }


def read_object(text: str) -> dict[str, object] | None:
    """The first JSON object in a text, or None."""
    text = text[:_LONGEST_CHARACTERS]
    decoder = json.JSONDecoder()
    start = text.find("{")
    while start >= 0:
        try:
            found, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        return dict(found)
    return None


def same(said: object, wanted: object) -> bool:
    """Whether two values of JSON are the same."""
    if isinstance(said, bool) or isinstance(wanted, bool):
        return said is wanted
    if isinstance(said, str) and isinstance(wanted, str):
        return said.strip() == wanted.strip()
    if isinstance(said, list) and isinstance(wanted, list):
        return len(said) == len(wanted) and all(map(same, said, wanted))
    if isinstance(said, dict) and isinstance(wanted, dict):
        return said.keys() == wanted.keys() and all(same(said[k], wanted[k]) for k in wanted)
    return said == wanted
