"""Scores answers by a regular expression."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_LONGEST_CHARACTERS = 20_000


def score(doc: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """`matches`: 1.0 where the expression is found in the answer, without the spaces around it.

    Write ^ and $ to match the whole answer; slashes around the expression do not count.
    """
    pattern = doc["answer"]
    if len(pattern) > 2 and pattern[0] == pattern[-1] == "/":
        pattern = pattern[1:-1]
    found = re.search(pattern, results[0].strip()[:_LONGEST_CHARACTERS])
    return {"matches": float(found is not None)}
