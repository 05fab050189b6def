"""The scorers that go into a task's folder: by number, by JSON fields, by parts, by pattern."""

from __future__ import annotations

import ast
import json
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from evomerge.conditions.metrics import read_last_number
from evomerge.questions import shipped
from evomerge.questions.shipped import containment, json_fields, last_number, pattern

FILES = sorted(Path(shipped.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_that_is_copied_needs_nothing_that_a_user_of_lm_eval_lacks(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names.append(str(node.module))
        for name in names:
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or top in ("datasets", "regex"), name


def test_what_scores_expressions_comes_with_lm_eval() -> None:
    for library, needed in (("lm_eval", "sacrebleu"), ("sacrebleu", "regex")):
        wanted = [Requirement(line) for line in requires(library) or ()]
        assert any(each.name == needed and each.marker is None for each in wanted)


NUMBERS = st.lists(
    st.sampled_from(
        ["12", "1,000", "-3", "$", "−", ".5", "１８", "{,}", "\\,", " ", "a", "m²", "."]
    )
).map("".join)


@given(NUMBERS)
def test_the_last_number_is_that_of_the_ready_criteria(text: str) -> None:
    assert last_number.read_last_number(text) == read_last_number(text)


@pytest.mark.parametrize(
    ("answer", "wanted", "right"),
    [
        ("so 70,000 dollars", "70000", 1.0),
        ("70000.0", "$70,000", 1.0),
        ("It is -3.", "−3", 1.0),
        ("3 or 4", "3", 0.0),
        ("none", "3", 0.0),
        ("the result is 5", "2 + 3 = 5\n#### 5", 1.0),
        ("1" * 400, "3", 0.0),
    ],
)
def test_the_last_number_counts(answer: str, wanted: str, right: float) -> None:
    assert last_number.score({"answer": wanted}, [answer]) == {"right_number": right}


@pytest.mark.parametrize(
    ("answer", "scores"),
    [
        ('{"name": "Ann", "age": 3}', (1.0, 1.0, 1.0)),
        ('Here:\n```json\n{"age": 3.0, "name": " Ann "}\n```', (1.0, 1.0, 1.0)),
        ('{not json} {"name": "Ann", "age": 3}', (1.0, 1.0, 1.0)),
        ('{"name": "Ann", "age": "3"}', (1.0, 0.5, 0.0)),
        ('{"name": "Ann", "age": true}', (1.0, 0.5, 0.0)),
        ('{"name": "Ann", "age": 3, "more": 1}', (1.0, 1.0, 0.0)),
        ("{}", (1.0, 0.0, 0.0)),
        ("Ann, 3", (0.0, 0.0, 0.0)),
        ("[1, 2", (0.0, 0.0, 0.0)),
        ('{"a":' * 5000, (0.0, 0.0, 0.0)),
        ('{"a":' + "1" * 5000, (0.0, 0.0, 0.0)),
    ],
)
def test_fields_of_an_object_are_compared_one_by_one(
    answer: str, scores: tuple[float, ...]
) -> None:
    wanted = {"answer": json.dumps({"name": "Ann", "age": 3})}
    found = json_fields.score(wanted, [answer])
    assert (found["valid_json"], found["right_fields"], found["all_right"]) == scores


def test_nested_values_are_the_same_or_not() -> None:
    wanted = {"answer": '{"a": [1, {"b": null}], "c": false}'}
    assert json_fields.score(wanted, ['{"a": [1.0, {"b": null}], "c": false}'])["all_right"] == 1.0
    assert json_fields.score(wanted, ['{"a": [1, {"b": 0}], "c": 0}'])["right_fields"] == 0.0


def test_all_texts_or_some_are_contained() -> None:
    assert containment.score({"answer": "New  York"}, ["in new\nyork!"])["contains"] == 1.0
    some = containment.score({"answer": ["red", "blue"]}, ["RED and green"])
    assert some == {"contains": 0.0, "contains_share": 0.5}


@pytest.mark.parametrize(
    ("expression", "answer", "found"),
    [("^a+$", " aa \n", 1.0), ("/b+/", "abba", 1.0), ("^a$", "ab", 0.0), ("(?i)yes", "Yes.", 1.0)],
)
def test_an_expression_is_searched_in_the_answer(
    expression: str, answer: str, found: float
) -> None:
    assert pattern.score({"answer": expression}, [answer]) == {"matches": found}
