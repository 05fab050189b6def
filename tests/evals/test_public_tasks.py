"""Tasks over public data sets: rows of every form become items, from files laid out as published.

The rows here are written for the tests; the data sets themselves are not shipped.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evomerge.errors import TaskError
from evomerge.evaluate.catalogue import TaskCatalogue
from evomerge.evaluate.public_data import FOLDER_VARIABLE, public_rows, read_rows
from evomerge.evaluate.suite import TaskSuite
from tests.checkpoints import word_tokenizer
from tests.evals.scripted import score_by_both

ARC_OF_THE_HUB = [
    {
        "id": f"a{n}",
        "question": f"Which of these is {n}?",
        "choices": {"text": [str(n + 1), str(n), "none"], "label": ["1", "2", "3"]},
        "answerKey": "2",
    }
    for n in range(40)
]
ARC_OF_ITS_AUTHORS = [
    {
        "id": row["id"],
        "question": {
            "stem": row["question"],
            "choices": [
                {"text": text, "label": label}
                for text, label in zip(row["choices"]["text"], row["choices"]["label"], strict=True)
            ],
        },
        "answerKey": row["answerKey"],
    }
    for row in ARC_OF_THE_HUB
]
MMLU = [
    {
        "question": f"What is {n}?",
        "subject": "sums",
        "choices": ["a", "b", "c", str(n)],
        "answer": 3,
    }
    for n in range(40)
]
GSM8K = [
    {"question": f"How much is {n} thousand?", "answer": f"It is <<{n}*1000>> so.\n#### {n},000"}
    for n in range(300)
]


def save(folder: Path, name: str, rows: list[dict[str, object]]) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


def first_item(task: str) -> dict[str, object]:
    return dict(next(iter(TaskCatalogue([]).find(task).task.test_docs())))


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("arc/ARC-Challenge-Test.jsonl", ARC_OF_ITS_AUTHORS),
        ("arc/ARC-Challenge-Test.jsonl", ARC_OF_THE_HUB),
        ("arc/arc_challenge_test.parquet", ARC_OF_THE_HUB),
    ],
)
def test_arcs_questions_are_the_same_from_every_file(
    folder: Path, name: str, rows: list[dict[str, object]]
) -> None:
    save(folder, name, rows)
    suite = TaskSuite.load(["knowledge_arc"], tokenizer=word_tokenizer())
    assert suite.size("knowledge_arc") == 40
    assert suite.metrics("knowledge_arc") == {"acc": True, "acc_norm": True}
    assert first_item("knowledge_arc") == {
        "question": "Which of these is 0?",
        "choices": ["1", "0", "none"],
        "right": 1,
    }


def test_mmlus_choices_are_shown_and_answered_by_letter(folder: Path) -> None:
    save(folder, "mmlu/test.parquet", MMLU)
    task = TaskCatalogue([]).find("knowledge_mmlu").task
    item = first_item("knowledge_mmlu")
    assert task.doc_to_text(item) == "What is 0?\nA. a\nB. b\nC. c\nD. 0\nAnswer:"
    assert task.doc_to_choice(item)[task.doc_to_target(item)] == "D"
    assert TaskSuite.load(["knowledge_mmlu"], tokenizer=word_tokenizer()).size(
        "knowledge_mmlu"
    ) == len(MMLU)


def test_the_problems_that_mgsm_translates_are_kept_apart(folder: Path) -> None:
    save(folder, "gsm8k/test.jsonl", GSM8K)
    suite = TaskSuite.load(["english_maths", "english_maths_mgsm"], tokenizer=word_tokenizer())
    assert (suite.size("english_maths"), suite.size("english_maths_mgsm")) == (50, 250)
    assert first_item("english_maths") == {"question": GSM8K[250]["question"], "answer": "250000"}
    assert first_item("english_maths_mgsm")["question"] == GSM8K[0]["question"]


def test_english_maths_counts_the_last_number_and_says_its_language(folder: Path) -> None:
    save(folder, "gsm8k/test.jsonl", GSM8K)
    answers = {0: "That comes to $250,000.", 1: "答えは251000です。", 2: "I count 252, not 253."}
    stock, ours = score_by_both("english_maths", answers)
    assert ours == stock
    assert ours == {
        "right_number": (1.0, 1.0, 0.0),
        "right_number_kept": (1.0, 0.0, 0.0),
        "language": (1.0, 0.0, 1.0),
    }


def test_the_first_file_that_is_there_is_read_and_the_hub_left_alone(folder: Path) -> None:
    save(folder, "b.jsonl", [{"x": 1}])
    assert public_rows(files=("a.jsonl", "b.jsonl"), hub="no/where", split="test") == [{"x": 1}]


def test_quotes_in_a_tsv_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('He said "no"\t1\n"half\t2\n', encoding="utf-8")
    assert read_rows(path, columns=("q", "a")) == [
        {"q": 'He said "no"', "a": "1"},
        {"q": '"half', "a": "2"},
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.jsonl", "{not json\n"), ("a.tsv", "one column\n"), ("a.parquet", "no parquet")],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TaskError, match=rf"{name}: cannot be read .* check the file"):
        read_rows(path, columns=("q", "a"))
