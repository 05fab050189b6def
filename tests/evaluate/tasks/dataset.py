"""Questions in the vocabulary of the tests' tokenizer, made on the spot; no file, no network."""

from __future__ import annotations

import random

from datasets import Dataset

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def load(*, items: int = 24, salt: int = 0, **_metadata: object) -> dict[str, Dataset]:
    """Splits `train` and `test`; the last test item is longer than the models' context."""
    source = random.Random(salt)
    return {
        "train": Dataset.from_list([_question(source, 2) for _ in range(8)]),
        "test": Dataset.from_list(
            [_question(source, 2 + index % 5) for index in range(items - 1)]
            + [_question(source, 150)]
        ),
    }


def _question(source: random.Random, terms: int) -> dict[str, object]:
    numbers = [source.choice(NUMBERS) for _ in range(terms)]
    right = source.randrange(3)
    choices = [
        "plus".join(f" {source.choice(NUMBERS)} " for _ in range(1 + place)).strip()
        for place in range(3)
    ]
    return {
        "question": " plus ".join(numbers) + " equals",
        "choices": choices,
        "right": right,
        "answer": choices[right],
    }


def shuffle(dataset: Dataset) -> Dataset:
    """The questions in an order that Python's global generator decides."""
    order = list(range(len(dataset)))
    random.shuffle(order)
    return dataset.select(order)
