"""Scores answers by their last number: `70,000`, `$70000` and `70000.0` are the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# A minus sign belongs to the number right after it, and never to the number before it.
_NUMBER = re.compile(
    r"""
    (?:(?<![A-Za-z0-9)\]}])-\$?)?
    (?:\d{1,3}(?:(?:,|\{,\}|\\,)\d{3})+(?!\d) | \d+)
    (?:\.\d+)?
    | \.\d+
    """,
    re.VERBOSE,
)
_NOT_OF_A_NUMBER = re.compile(r"[^\d.\-]")
# Full-width signs and digits become plain ones.
_PLAIN = {0xFF01 + offset: 0x21 + offset for offset in range(94)} | {ord("−"): ord("-")}
_TOLERANCE = 1e-9


def read_last_number(text: str) -> float | None:
    """The last number of a text; None where it has none."""
    found = find_numbers(text)
    return float(_NOT_OF_A_NUMBER.sub("", found[-1][0])) if found else None


def find_numbers(text: str) -> list[re.Match[str]]:
    """Where numbers are in a text, in order."""
    return list(_NUMBER.finditer(text.translate(_PLAIN)))


def score(doc: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """`right_number`: 1.0 where the last number of the answer is the right one."""
    said, wanted = read_last_number(results[0]), read_last_number(doc["answer"])
    right = said is not None and wanted is not None and abs(said - wanted) <= _TOLERANCE
    return {"right_number": float(right)}
