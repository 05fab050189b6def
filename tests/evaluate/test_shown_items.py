"""Items that stand as few-shot examples in prompts, with their answers, are not scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from evomerge.errors import TaskError
from evomerge.evaluate.suite import TaskSuite
from tests.checkpoints import word_tokenizer

ROWS = """
from datasets import Dataset

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def load(*, first=0, items=40, **_):
    def rows(numbers, start):
        return Dataset.from_list([
            {"id": start + n, "question": f"{WORDS[n // 10]} plus {WORDS[n % 10]} equals",
             "choices": ["one", "two"], "right": n % 2}
            for n in numbers
        ])
    return {"test": rows(range(first, first + items), 0), "train": rows(range(50, 60), 500)}
"""


def write(folder: Path, name: str, **changes: Any) -> None:
    task: dict[str, Any] = {
        "task": name,
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "right",
        "num_fewshot": 2,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    task.update(changes)
    folder.mkdir(exist_ok=True)
    (folder / "rows.py").write_text(ROWS)
    text = yaml.safe_dump({key: value for key, value in task.items() if value is not None})
    (folder / f"{name}.yaml").write_text(f"custom_dataset: !function rows.load\n{text}")


def load(folder: Path, *names: str, num_fewshot: int | None = None) -> TaskSuite:
    return TaskSuite.load(
        names, folders=[folder], tokenizer=word_tokenizer(), num_fewshot=num_fewshot
    )


def split_items(suite: TaskSuite, task: str) -> list[int]:
    return sorted(
        index for split in ("search", "validation", "test") for index in suite.items(task, split)
    )


@pytest.mark.parametrize("changes", [{}, {"fewshot_split": "test"}, {"num_fewshot": 1}])
def test_examples_drawn_from_the_scored_items_are_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    write(tmp_path / "mine", "shots", **changes)
    with pytest.raises(TaskError, match=r"shots: \d+ of its 40 items are few-shot .*fewshot_split"):
        load(tmp_path / "mine", "shots")
    plain = load(tmp_path / "mine", "shots", num_fewshot=0)
    assert split_items(plain, "shots") == list(range(40))


def test_examples_of_a_split_of_their_own_leave_every_item(tmp_path: Path) -> None:
    write(tmp_path / "mine", "shots", fewshot_split="train")
    assert split_items(load(tmp_path / "mine", "shots"), "shots") == list(range(40))


def test_the_first_items_as_examples_are_in_no_split(tmp_path: Path) -> None:
    first = {"sampler": "first_n"}
    write(tmp_path / "mine", "shots", fewshot_split="test", fewshot_config=first)
    suite = load(tmp_path / "mine", "shots")
    # The first two items are shown the third.
    assert split_items(suite, "shots") == list(range(3, 40))
    assert suite.scored("shots") == tuple(range(3, 40))
    assert suite.size("shots") == 40


@pytest.mark.parametrize(
    "wording",
    [
        {},
        {"doc_to_text": "{{asked}}", "doc_to_choice": ["one", "two"], "doc_to_target": "right"},
    ],
)
def test_written_examples_that_ask_what_an_item_asks_leave_it_out(
    tmp_path: Path, wording: dict[str, Any]
) -> None:
    samples = [
        {"id": 900, "question": "zero  plus three equals", "choices": ["one", "two"], "right": 1},
        {"id": 901, "question": "nine plus three equals", "choices": ["one", "two"], "right": 1},
    ]
    for sample in samples if wording else ():
        sample["asked"] = sample.pop("question")
    config = {"sampler": "first_n", "samples": samples, **wording}
    write(tmp_path / "mine", "shots", fewshot_config=config)
    assert 3 not in (scored := load(tmp_path / "mine", "shots").scored("shots"))
    assert len(scored) == 39


def test_examples_of_one_task_leave_out_the_items_of_another(tmp_path: Path) -> None:
    write(tmp_path / "mine", "shots", fewshot_split="train")
    write(tmp_path / "mine", "other", num_fewshot=0, dataset_kwargs={"first": 20, "items": 40})
    suite = load(tmp_path / "mine", "shots", "other")
    assert suite.scored("shots") == tuple(range(40))
    # Rows 50 to 59 are the examples, under other ids.
    assert suite.scored("other") == tuple(range(30))
    alone = load(tmp_path / "mine", "other")
    assert alone.scored("other") == tuple(range(40))
    named = "items of other"
    assert alone.task_files[named] != suite.task_files[named]


def test_a_text_that_stands_before_every_item_tells_none_apart(tmp_path: Path) -> None:
    write(
        tmp_path / "mine",
        "shots",
        fewshot_split="train",
        output_type="loglikelihood",
        doc_to_text="equals",
        doc_to_choice=None,
        doc_to_target="{{question}}",
        metric_list=[{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    )
    assert load(tmp_path / "mine", "shots").scored("shots") == tuple(range(40))
