r"""The last number that an answer says, which mathematics benchmarks take for its result.

Two ways of reading it. `published` is the regular expression of Akiba et al. 2024 (arXiv
2403.13187, https://github.com/SakanaAI/evolutionary-model-merge): it knows no sign and no
separators, so `70,000` is 0 to it. `separated` reads those too, and is otherwise the same.
"""

from __future__ import annotations

import re
from typing import Literal

Reading = Literal["separated", "published"]

_PUBLISHED = re.compile(r"\d*\.?\d+")
# A minus sign belongs to a number that follows at once, and not to one that stands before it.
_SEPARATED = re.compile(
    r"""
    (?:(?<![A-Za-z0-9)\]}])-\$?)?
    (?:\d{1,3}(?:(?:,|\{,\}|\\,)\d{3})+(?!\d) | \d+)
    (?:\.\d+)?
    | \.\d+
    """,
    re.VERBOSE,
)
_NOT_OF_A_NUMBER = re.compile(r"[^\d.\-]")
# Full-width signs and digits as plain ones. No compatibility form: that would make m² into m2.
_PLAIN = {0xFF01 + offset: 0x21 + offset for offset in range(94)} | {ord("−"): ord("-")}


def read_last_number(text: str, reading: Reading = "separated") -> float | None:
    """The last number of a text; None where it has none.

    Both read digits of every width and script (`１８` is 18). Neither reads number words or kanji:
    `七万` has no number, and `7万` is 7.
    """
    if reading == "published":
        found = _PUBLISHED.findall(text)
        return float(found[-1]) if found else None
    found = _SEPARATED.findall(text.translate(_PLAIN))
    return float(_NOT_OF_A_NUMBER.sub("", found[-1])) if found else None
