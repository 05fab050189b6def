"""A user's regular expressions are refused where they are wrong, large or slow, and never hang."""

from __future__ import annotations

from pathlib import Path

import pytest

import evomerge
from evomerge.questions import expressions
from evomerge.questions.expressions import expression_problem, is_expression
from evomerge.questions.shipped import pattern
from tests.questions.tables import write_rows

USUAL = (
    r"^\d{4}-\d{2}-\d{2}$",
    r"/.*total.*is.*5/",
    r"^(?:\d{1,3}(?:,\d{3})*|\d+)(?:\.\d+)?$",
    r"^([a-zA-Z0-9_.+-]+)@([a-zA-Z0-9-]+\.)+[a-z]+$",
    r"^(\d+[., ]?)+%$",
    r'/\{"a": [^{}]+\}/',
    r"(?i:yes|no)",
    r"(?P<n>a)(?P=n)+",
    r"/[\\]]+/",
    r"(\N{DIGIT ONE})+[{]+",
    "|".join(f"(word{number})+" for number in range(100)),
)

SLOW = (
    r"^(a|aa)+$",
    r"/(x+x+)+y/",
    r"^(([a-z])+.)+[A-Z]([a-z])+$",
    r"^Answer: x(a|a)*$",
    r"^(?:(a|b)|(\w))*\1$",
    r"^(.*?,){11}P",
)


@pytest.mark.parametrize("expression", USUAL)
def test_usual_expressions_are_taken(expression: str) -> None:
    assert expression_problem(expression) is None


@pytest.mark.parametrize("expression", SLOW)
def test_an_expression_whose_time_doubles_with_the_answer_is_refused(
    expression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expressions, "_TRIED_S", 0.05)
    problem = expression_problem(expression)
    assert problem is not None and problem.startswith("takes too long on some answers; ")
    assert is_expression(expression)  # so it is proposed as what it is, and refused as slow


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("(", "is no regular expression"),
        ("\\", "is no regular expression"),
        ("/[[:alpha:]]/", "is no regular expression"),
        (r"(?R)", "is no regular expression"),
        ("(" * 3000 + ")" * 3000, "is no regular expression"),
        ("x{e<=3}", r"write \{ for the sign"),
        ('/{"a": 1}/', r"write \{ for the sign"),
        ("((((a{100}){100}){100}){100})", "repeats a part too often"),
        ("a" * 10_001, "longer than 10,000 characters"),
    ],
)
def test_an_expression_that_is_wrong_or_large_is_refused(expression: str, problem: str) -> None:
    found = expression_problem(expression)
    assert found is not None and problem in found and "\n" not in found


def test_a_slow_expression_is_refused_with_its_row_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expressions, "_TRIED_S", 0.05)
    rows = [{"question": "a", "answer": "^b$"}, {"question": "c", "answer": "^(a|aa)+$"}]
    path = write_rows(tmp_path / "mine.jsonl", rows)
    with pytest.raises(evomerge.TaskError, match=r"line 2: the answer '.*' takes too long"):
        evomerge.task_from_file(path, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_an_expression_that_takes_too_long_for_an_answer_is_not_found_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pattern, "_LONGEST_S", 0.05)
    slow = {"answer": "^(a|aa)+$"}
    assert pattern.score(slow, ["a" * 300 + "!"]) == {"matches": 0.0}
    assert pattern.score(slow, ["aaa"]) == {"matches": 1.0}
