"""Conditions as data of a task file: stock lm-eval and the suite make the same of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from evomerge.conditions.filters import BROKEN, Keep
from evomerge.conditions.metrics import score_item
from evomerge.errors import TaskError
from evomerge.evaluate.suite import TaskSuite
from tests.checkpoints import word_tokenizer
from tests.evals.scripted import score_by_both

TASKS = Path(__file__).parent / "tasks"

ANSWERS = {
    0: "2に3を足すと、答えは5です。",
    1: "Adding 40 and 2 makes 42.",
    2: "答えは100です。",
    3: "七に零を足しても変わりませんので、いろいろと考えた末の最終的な答えは、やはり7です。",
}
"""Right and Japanese; right and English; wrong and Japanese; right, Japanese and too long."""


def test_a_filter_makes_an_answer_that_breaks_a_condition_wrong() -> None:
    stock, ours = score_by_both("conditioned", ANSWERS, folders=[TASKS])
    assert ours == stock
    assert ours == {
        "exact_match,in-japanese": (1.0, 0.0, 0.0, 0.0),
        "exact_match,any-language": (1.0, 1.0, 0.0, 1.0),
    }


def test_a_metric_says_of_each_item_whether_a_condition_is_kept() -> None:
    answers = {0: "5", 1: "Sure, it is 42.", 2: "The total is 1,000.", 3: "答えは7です"}
    stock, ours = score_by_both("measured", answers, folders=[TASKS])
    assert ours == stock
    assert ours == {
        "exact_match": (1.0, 0.0, 0.0, 0.0),
        "kept": (0.0, 0.0, 1.0, 0.0),
        "language": (0.0, 0.0, 0.0, 1.0),
        "form": (0.0, 1.0, 1.0, 0.0),
        "length": (1.0, 0.0, 0.0, 1.0),
        "right_number": (1.0, 1.0, 1.0, 1.0),
        "right_number_kept": (0.0, 0.0, 0.0, 1.0),
    }


def test_a_broken_answer_holds_nothing_that_could_be_right() -> None:
    keep = Keep(conditions=[{"language": "ja"}])
    assert keep.apply([["答えは5です。", "It is 5."], ["5"]], [{}, {}]) == [
        ["答えは5です。", BROKEN],
        [BROKEN],
    ]
    assert not any(letter.isdigit() for letter in BROKEN)
    assert Keep(conditions={"language": "ja"}, instead="").apply([["5"]], [{}]) == [[""]]


def test_an_item_carries_its_own_conditions() -> None:
    item = {"conditions": '[{"language": "ja"}, {"length": "characters", "at_most": 5}]'}
    assert score_item(item, ["空は青い"]) == {"kept": 1.0, "kept_share": 1.0}
    assert score_item(item, ["空はとても青い"]) == {"kept": 0.0, "kept_share": 0.5}


@pytest.mark.parametrize(
    ("task", "right", "wrong", "said"),
    [
        (
            "conditioned",
            "language: ja",
            "language: jaa",
            "filter in-japanese: .*jaa is no language",
        ),
        ("conditioned", "conditions:", "condition:", "filter in-japanese: TypeError: .*condition"),
        ("measured", "format: ends", "format: end", "metric form: .*format end is unknown"),
        ("measured", "at_most: 3", "atmost: 3", r"metric length: conditions\[0\].atmost: no such"),
        (
            "measured",
            "metrics.right_number\n",
            "metrics.right_number\n    reading: loud\n",
            "metric right_number: reading: loud is unknown; use one of separated, published",
        ),
    ],
)
def test_wrong_settings_are_said_when_the_task_is_loaded(
    task: str, right: str, wrong: str, said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(TASKS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / f"{task}.yaml"
    text = path.read_text(encoding="utf-8")
    assert right in text
    path.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    with pytest.raises(TaskError, match=f"task {task}: {said}"):
        TaskSuite.load([task], folders=[folder], tokenizer=word_tokenizer())
