"""Scores for questions asked in Japanese: the number must be right and said in Japanese.

Akiba et al. 2024 (arXiv 2403.13187) count an answer as right only when its number is correct and
its text is Japanese; the parts of that condition are scored apart here as well.
"""

from __future__ import annotations

import re

_HIRAGANA_WORDS = re.compile(r"[\u3041-\u309f]+(?: [\u3041-\u309f]+)*")


def score_japanese_number(doc: dict[str, str], results: list[str]) -> dict[str, float]:
    """Score one generated answer.

    `exact_match`: the right number, in Japanese. `right_number`: the right number, in Japanese or
    in English. `japanese`: hiragana words and nothing else, whatever they say.
    """
    said = " ".join(results[0].split())
    return {
        "exact_match": float(said == doc["answer"]),
        "right_number": float(said in (doc["answer"], doc["other"])),
        "japanese": float(_HIRAGANA_WORDS.fullmatch(said) is not None),
    }
