"""Values of functions: items that are right, and answers read as literals without running them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evomerge.evaluate.public_data import FOLDER_VARIABLE
from evomerge.evaluate.suite import TaskSuite
from tests.checkpoints import word_tokenizer
from tests.evals.scripted import EVALS, import_file, score_by_both

FOLDER = EVALS / "code_outputs"
ITEMS = [
    json.loads(line)
    for line in (FOLDER / "data/code_outputs.jsonl").read_text(encoding="utf-8").splitlines()
]
scoring = import_file(FOLDER / "scoring.py")


def test_the_items_are_what_the_generator_writes() -> None:
    generate = import_file(FOLDER / "generate.py")
    assert generate.text() == (FOLDER / "data/code_outputs.jsonl").read_text(encoding="utf-8")


def test_the_code_that_is_shown_gives_the_value_that_is_asked_for() -> None:
    for item in ITEMS:
        names: dict[str, object] = {}
        exec(item["code"], names)
        value = eval(f"f({item['input']})", names)
        assert repr(value) == item["output"], item["code"]


def test_items_differ_and_no_function_always_gives_one_value() -> None:
    assert len({(item["code"], item["input"]) for item in ITEMS}) == len(ITEMS) == 420
    for code in {item["code"] for item in ITEMS}:
        assert len({item["output"] for item in ITEMS if item["code"] == code}) > 1, code


@pytest.mark.parametrize(
    ("said", "output", "right", "literal"),
    [
        (" [1, 2]", "[1, 2]", 1, 1),
        ("[1,2]\nbecause the list", "[1, 2]", 1, 1),
        ("\n`'ab'`", "'ab'", 1, 1),
        ('"ab"', "'ab'", 1, 1),
        ("ab", "'ab'", 0, 0),
        ("{'b': 2, 'a': 1}", "{'a': 1, 'b': 2}", 1, 1),
        ("(1, 2)", "[1, 2]", 0, 1),
        ("1", "True", 0, 1),
        ("True", "1", 0, 1),
        ("[True]", "[1]", 0, 1),
        ("2.0", "2", 0, 1),
        ("None", "None", 1, 1),
        ("{1, 2}", "{2, 1}", 1, 1),
        ("[i for i in range(2)]", "[0, 1]", 0, 0),
        ("__import__('os').getcwd()", "''", 0, 0),
        ("", "None", 0, 0),
        ("[" * 1900, "[]", 0, 0),
        ("-" * 1900 + "1", "1", 0, 0),
        ("9" * 5000, "9", 0, 0),
        ("{[]: 1}", "{}", 0, 0),
        ("the answer is 3", "3", 0, 0),
    ],
)
def test_an_answer_is_a_value_of_the_same_types(
    said: str, output: str, right: int, literal: int
) -> None:
    scores = scoring.score_value({"output": output}, [said])
    assert scores == {"exact_match": right, "literal": literal}


def test_lm_eval_and_the_suite_score_alike() -> None:
    answers = {0: ITEMS[0]["output"], 100: "[]", 419: "no idea"}
    stock, ours = score_by_both("code_outputs", answers)
    assert ours == stock == {"exact_match": (1.0, 0.0, 0.0), "literal": (1.0, 1.0, 0.0)}


def test_cruxevals_rows_become_items_without_running_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"id": f"sample_{n}", "code": f"def f(x):\n    return x + {n}", "input": "1", "output": "2"}
        for n in range(40)
    ]
    (tmp_path / "cruxeval").mkdir()
    (tmp_path / "cruxeval/cruxeval.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    suite = TaskSuite.load(["code_cruxeval"], tokenizer=word_tokenizer())
    assert suite.size("code_cruxeval") == 40
    assert set(suite.metrics("code_cruxeval")) == {"exact_match", "literal"}
