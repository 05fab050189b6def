"""Scores answers by the texts that they contain."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence


def score(doc: Mapping[str, str | Sequence[str]], results: Sequence[str]) -> dict[str, float]:
    """Look for the right texts in an answer, whatever the case and the spaces.

    `contains`: all of them are there. `contains_share`: the share of them that is.
    """
    wanted = doc["answer"]
    texts = [wanted] if isinstance(wanted, str) else list(wanted)
    said = _plain(results[0])
    found = sum(_plain(text) in said for text in texts)
    return {"contains": float(found == len(texts)), "contains_share": found / len(texts)}


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
