"""Sums in the vocabulary of the tests' tokenizer: each task has others, and another number."""

from __future__ import annotations

import itertools

from datasets import Dataset

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def load(first: int, last: int, **_metadata: object) -> dict[str, Dataset]:
    """One split, `test`: the sums from number `first` up to `last`."""
    pairs = list(itertools.product(range(11), range(11)))[first:last]
    items = [
        {"question": f"{NUMBERS[a]} plus {NUMBERS[b]} equals", "answer": NUMBERS[(a + b) % 11]}
        for a, b in pairs
    ]
    return {"test": Dataset.from_list(items)}
