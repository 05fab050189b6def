"""GSM8K's test problems, from a file that the user has or from the hub.

MGSM is a translation of the first 250 of them, so those are a task of their own: a search on the
others has seen nothing of MGSM.
"""

from __future__ import annotations

from datasets import Dataset

from evomerge.evaluate.public_data import public_rows

_OF_MGSM = 250


def load(*, of_mgsm: bool, **_metadata: object) -> dict[str, Dataset]:
    """The split `test`: a question and its answer in digits; lm-eval's metadata are unused.

    of_mgsm: the 250 problems that MGSM translates; else the 1,069 others.
    """
    rows = public_rows(
        files=("gsm8k/test.jsonl", "gsm8k_test.jsonl"),
        hub="openai/gsm8k",
        config="main",
        split="test",
    )
    chosen = rows[:_OF_MGSM] if of_mgsm else rows[_OF_MGSM:]
    return {"test": Dataset.from_list([_item(row) for row in chosen])}


def _item(row: dict[str, object]) -> dict[str, str]:
    result = str(row["answer"]).rpartition("####")[2]
    return {"question": str(row["question"]).strip(), "answer": result.strip().replace(",", "")}
