"""Whether an answer has the right number, or the right facts as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_NUMBER = re.compile(r"-?\d+")


def right_number(doc: Mapping[str, Any], results: list[str]) -> dict[str, float]:
    """1.0 where the last number in the answer is the right one."""
    found = _NUMBER.findall(results[0].replace(",", ""))
    return {"right": float(bool(found) and found[-1].lstrip("0") == doc["answer"])}


def right_json(doc: Mapping[str, Any], results: list[str]) -> dict[str, float]:
    """1.0 where the answer's first JSON object has exactly the right keys and values.

    Values are compared as text without case, so `13` and `"13"` are equal.
    """
    found = _first_object(results[0])
    return {
        "right": float(found is not None and _plain(found) == _plain(json.loads(doc["answer"])))
    }


def _first_object(answer: str) -> dict[str, Any] | None:
    start = answer.find("{")
    if start < 0:
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(answer[start:])
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _plain(facts: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value).strip().lower() for key, value in facts.items()}
