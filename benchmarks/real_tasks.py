"""Tasks of real questions for measuring the speed of scoring on a real model.

They come from a folder with GSM8K (`gsm8k/test.jsonl`, `gsm8k/train_400.jsonl`) and MGSM
(`mgsm/mgsm_en.tsv`, `mgsm/mgsm_ja.tsv`), as their authors publish them. Multiple choice has long
choices, the worked answer of the question and three of other questions, or short ones, numbers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from scoring_speed_tasks import Item, rows_of, with_choices, write_items, write_task

ANSWER_TOKENS = 128
"""About as long as a worked answer."""


@dataclass(frozen=True, kw_only=True)
class RealTask:
    """examples: shared by all items, of the task's own kind. chat: by the model's template."""

    kind: str
    data: str
    examples: int
    until: str
    chat: bool = False


REAL_TASKS = {
    "gsm8k_8_shot": RealTask(kind="answer", data="gsm8k", examples=8, until="Question:"),
    "gsm8k_5_shot": RealTask(kind="answer", data="gsm8k", examples=5, until="Question:"),
    "gsm8k_0_shot": RealTask(kind="answer", data="gsm8k", examples=0, until="Question:"),
    "gsm8k_chat": RealTask(kind="answer", data="gsm8k", examples=0, until="Question:", chat=True),
    "mgsm_en_8_shot": RealTask(kind="answer", data="mgsm_en", examples=8, until="\n"),
    "mgsm_ja_8_shot": RealTask(kind="answer", data="mgsm_ja", examples=8, until="\n"),
    "mgsm_ja_0_shot": RealTask(kind="answer", data="mgsm_ja", examples=0, until="問題:"),
    "choice_5_shot": RealTask(kind="choice", data="gsm8k", examples=5, until=""),
    "choice_0_shot": RealTask(kind="choice", data="gsm8k", examples=0, until=""),
    "short_choice_5_shot": RealTask(kind="choice", data="mgsm_en", examples=5, until=""),
    "short_choice_0_shot": RealTask(kind="choice", data="mgsm_en", examples=0, until=""),
    "choice_chat": RealTask(kind="choice", data="gsm8k", examples=0, until="", chat=True),
}
"""By name; a number is of the examples before every item."""


def write_real_tasks(folder: Path, data: Path, *, items: int) -> None:
    """Write `REAL_TASKS` over the first items of each set of questions.

    The examples are training items of GSM8K, and the last items of MGSM, which has no others here.
    """
    sets = {"gsm8k": (_gsm8k(data / "gsm8k/train_400.jsonl"), _gsm8k(data / "gsm8k/test.jsonl"))}
    for language, words in (("en", ("Question:", "Answer:")), ("ja", ("問題:", "解答:"))):
        rows = _mgsm(data / f"mgsm/mgsm_{language}.tsv", words)
        sets[f"mgsm_{language}"] = rows[-8:], rows[:-8]
    for name, (train, test) in sets.items():
        write_items(
            folder / name,
            {
                "train": [asdict(item) for item in train],
                "test": [asdict(item) for item in test[:items]],
            },
        )
    for name, task in REAL_TASKS.items():
        write_task(
            folder / task.data,
            name,
            kind=task.kind,
            examples=task.examples,
            fixed=True,
            limit_tokens=ANSWER_TOKENS,
            until=task.until,
        )


def _gsm8k(file: Path) -> list[Item]:
    rows = [("Question: " + row["question"] + "\nAnswer:", row["answer"]) for row in rows_of(file)]
    return with_choices([(question, answer, answer) for question, answer in rows])


def _mgsm(file: Path, words: tuple[str, str]) -> list[Item]:
    question, answer = words
    lines = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]
    return with_choices(
        [(f"{question} {text}\n{answer}", number, number) for text, number in lines]
    )
