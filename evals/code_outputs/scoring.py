"""Whether an answer is the value asked for: literals are read and compared, nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

_LONGEST_CHARACTERS = 2000
"""Longer answers are wrong; reading them could take the interpreter's whole stack."""


def score_value(doc: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """Score the first line of an answer that is not empty.

    `exact_match`: it is a literal of the same value and types (`'a'` and `"a"` are the same, `1`
    and `True` are not). `literal`: it is a literal, whatever its value.
    """
    lines = [line.strip().strip("`").strip() for line in results[0].splitlines()]
    said = _read(next((line for line in lines if line), ""))
    right = said is not None and said == _read(doc["output"])
    return {"exact_match": float(right), "literal": float(said is not None)}


def _read(text: str) -> object | None:
    """The value of a literal with the type of every part, or None where the text is none."""
    if len(text) > _LONGEST_CHARACTERS:
        return None
    try:
        return _typed(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _typed(value: object) -> tuple[str, object]:
    match value:
        case dict():
            return "dict", frozenset((_typed(key), _typed(entry)) for key, entry in value.items())
        case list() | tuple():
            return type(value).__name__, tuple(_typed(entry) for entry in value)
        case set():
            return "set", frozenset(_typed(entry) for entry in value)
        case _:
            return type(value).__name__, value
