"""MGSM's problems in Japanese, from a file that the user has or from the hub."""

from __future__ import annotations

from datasets import Dataset

from evomerge.evaluate.public_data import public_rows


def load(**_metadata: object) -> dict[str, Dataset]:
    """The split `test`: a question and its answer in digits; lm-eval's metadata are unused."""
    rows = public_rows(
        files=("mgsm/mgsm_ja.tsv", "mgsm_ja.tsv"),
        columns=("question", "answer_number"),
        hub="juletxara/mgsm",
        config="ja",
        split="test",
    )
    # The same text from either place, so that an item is on the same side of the split.
    return {
        "test": Dataset.from_list(
            [
                {
                    "question": str(row["question"]).strip(),
                    "answer": str(row["answer_number"]).replace(",", "").removesuffix(".0"),
                }
                for row in rows
            ]
        )
    }
