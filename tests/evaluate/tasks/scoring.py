"""Scores of an answer's form, so that a random model gets more than zeros."""

from __future__ import annotations


def score_form(doc: dict[str, object], results: list[str]) -> dict[str, float]:
    """`words`: how many were said. `starts`: whether the first is early in the alphabet."""
    words = results[0].split()
    return {"words": float(len(words)), "starts": float(bool(words) and words[0] < "n")}
