"""Questions answered by a coin: what fits the answers of some items holds for no others."""

from __future__ import annotations

import hashlib
import itertools

from datasets import Dataset

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SIGNS = ("plus", "minus", "times")


def load(**_metadata: object) -> dict[str, Dataset]:
    """One split, `test`: 363 questions and the side that each one's coin shows, 0 or 1.

    Both sides come as often, in an order that hashes make: a model that always says the same is
    right half the time.
    """
    asked = [f"is {a} {sign} {b} true" for a, sign, b in itertools.product(NUMBERS, SIGNS, NUMBERS)]
    asked.sort(key=lambda question: hashlib.sha256(question.encode()).digest())
    items = [{"question": question, "side": place % 2} for place, question in enumerate(asked)]
    return {"test": Dataset.from_list(items)}
