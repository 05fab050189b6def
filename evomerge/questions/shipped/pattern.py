"""Scores answers by a regular expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import regex  # comes with lm-eval; Python's own `re` cannot be stopped

_LONGEST_CHARACTERS = 20_000
_LONGEST_S = 1.0
"""Processor time for one answer."""


def score(doc: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """`matches`: 1.0 where the expression is found in the answer, without the spaces around it.

    Write ^ and $ to match the whole answer; slashes around the expression do not count. An
    expression that takes too long counts as not found.
    """
    answer = results[0].strip()[:_LONGEST_CHARACTERS]
    try:
        found = regex.search(bare(doc["answer"]), answer, timeout=_LONGEST_S)
    except TimeoutError:
        found = None
    return {"matches": float(found is not None)}


def bare(pattern: str) -> str:
    """An expression without slashes around it."""
    return pattern[1:-1] if len(pattern) > 2 and pattern[0] == pattern[-1] == "/" else pattern
