"""Sums in the vocabulary of the tests' tokenizer, made on the spot; no file, no network."""

from __future__ import annotations

import itertools

from datasets import Dataset

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def load(**_metadata: object) -> dict[str, Dataset]:
    """One split, `test`: 121 distinct sums and what they come to."""
    pairs = itertools.product(range(11), range(11))
    items = [
        {"question": f"{NUMBERS[a]} plus {NUMBERS[b]} equals", "answer": NUMBERS[(a + b) % 11]}
        for a, b in pairs
    ]
    return {"test": Dataset.from_list(items)}
