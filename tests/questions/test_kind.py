"""The kind of answer is proposed from the answers; an answer of another kind is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import TaskError
from evomerge.questions.columns import Columns
from evomerge.questions.items import Item, Read, read_items
from evomerge.questions.kind import answered, propose_kind, propose_limit, propose_stop
from evomerge.questions.table import Cell, Table


def read(answers: Sequence[Cell], *choices: Sequence[Cell], names: Sequence[str] = ()) -> Read:
    """A table of answers, and a column for each list of choices."""
    labels = tuple(names or [f"choice_{'abcdefgh'[number]}" for number in range(len(choices))])
    rows = [
        (f"question {number}", answer, *(column[number] for column in choices))
        for number, answer in enumerate(answers)
    ]
    table = Table(
        format="csv",
        path=Path("q.csv"),
        columns=("question", "answer", *labels),
        rows=tuple(rows),
        places=tuple(f"line {number + 2}" for number in range(len(rows))),
        sha256="",
    )
    return read_items(table, Columns(question="question", answer="answer", choices=labels))


def items_of(found: Read, kind: str | None = None, **options: Any) -> tuple[tuple[Item, ...], str]:
    return answered(found, propose_kind(found, kind), where="q.csv", **options)


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (["Paris", "London"], "exact"),
        (["18", "-3", "1,000", "2.5"], "number"),
        ([18, 2.5], "number"),
        (["$70,000", "12 km", "3.5%", "１８"], "number"),
        (["half of 8 is 4\n#### 4", "so\n#### 1,200"], "number"),
        (["so ####12", "so ####\n 12####"], "number"),
        (["#### 1 and more"], "exact"),
        (["####1" * 10**5 + " x"], "exact"),  # would take hours by a pattern
        (["2024-01-05", "12"], "exact"),
        (['{"name": "Ann"}', '{"name": "Bo", "age": 3}'], "json"),
        ([{"name": "Ann"}], "json"),
        (["^a+$", "/b/"], "regex"),
        ([["red", "blue"], ["green"]], "contains"),
        (["yes", "no"] * 5, "choices"),
        ([True, False] * 5, "choices"),
        (["yes", "no"], "exact"),
        (["a long answer of many words that no model will say exactly like this one"], "exact"),
    ],
)
def test_the_kind_follows_from_all_answers(answers: list[Cell], kind: str) -> None:
    proposal = propose_kind(read(answers))
    assert proposal.kind == kind and proposal.reason


def test_long_answers_are_exact_with_advice() -> None:
    text = "a long answer of many words that no model will say exactly like this one"
    assert "--kind contains" in propose_kind(read([text])).reason


def test_the_users_kind_wins_and_an_unknown_one_is_refused() -> None:
    assert propose_kind(read(["18"]), "exact").kind == "exact"
    with pytest.raises(TaskError, match=r"--kind essay: no such kind.*choices, exact, number"):
        propose_kind(read(["18"]), "essay")
    with pytest.raises(TaskError, match="--kind choices: there are no choices"):
        propose_kind(read([str(number) for number in range(20)]), "choices")


@pytest.mark.parametrize(
    ("kind", "answers", "problem"),
    [
        ("number", ["1", "one"], "line 3: the answer 'one' has no number"),
        ("number", ["1", "1.234,56"], "line 3: .* would be read as its last part, 56; write it as"),
        ("number", ["5,5"], "line 2: .* its last part, 5;"),
        ("number", ["1 234"], "line 2: .* its last part, 234;"),
        ("number", ["so\n#### 1'000"], "line 2: .* its last part, 0;"),
        ("number", ["1e-5"], "line 2: .* its last part, 5;"),
        ("number", ["3/4"], "line 2: .* its last part, 4;"),
        ("number", ["12:30"], "line 2: .* its last part, 30;"),
        ("json", ['{"a": 1}', "[1]"], r"line 3: the answer '\[1\]' is no JSON object"),
        ("regex", ["a", "(("], r"line 3: the answer '\(\(' is no regular expression"),
    ],
)
def test_an_answer_of_another_kind_is_named(kind: str, answers: list[str], problem: str) -> None:
    with pytest.raises(TaskError, match=problem):
        items_of(read(answers), kind)


@pytest.mark.parametrize("answer", ["1,234.5", "-3", "2 + 3 = 5", "a 3, a 4", "$70,000", "12 km"])
def test_a_number_alone_or_after_others_is_taken(answer: str) -> None:
    assert items_of(read([answer]), "number")[0][0].answer == answer


FOUR = (["w", "1"], ["x", "2"], ["y", "3"], ["z", "4"])


@pytest.mark.parametrize(
    ("answers", "places", "said"),
    [
        (["x", "4"], (1, 3), "text"),
        (["X", "4"], (1, 3), "text"),
        (["ｘ", "4"], (1, 3), "text"),
        (["B", "D"], (1, 3), "label"),
        (["(b)", "d."], (1, 3), "label"),
        ([0, 2], (0, 2), "number, from 0"),
        (["4", "1"], (3, 0), "number, from 1"),
    ],
)
def test_the_right_choice_is_read_in_the_one_way_that_fits_every_row(
    answers: list[Cell], places: tuple[int, ...], said: str
) -> None:
    items, reason = items_of(read(answers, *FOUR))
    assert tuple(item.answer for item in items) == places
    assert said in reason and "4 choices" in reason


def test_numbers_that_could_count_from_0_or_1_are_refused_until_told() -> None:
    found = read([1, 2], *FOUR[:3])
    with pytest.raises(TaskError, match=r"from 0 or from 1; give --count-from"):
        items_of(found)
    items, _ = items_of(found, count_from=1)
    assert [item.answer for item in items] == [0, 1]
    with pytest.raises(TaskError, match="--count-from: there are no columns with choices"):
        items_of(read(["Paris"]), count_from=0)


def test_an_answer_that_is_no_choice_is_named() -> None:
    with pytest.raises(TaskError, match="line 3: the answer 'E' is none of its 4 choices"):
        items_of(read(["A", "E"], *FOUR))


def test_labels_that_come_again_are_the_choices_of_every_item() -> None:
    items, reason = items_of(read(["yes", "no", "no", "yes"] * 5))
    assert {item.choices for item in items} == {("no", "yes")}
    assert [item.right for item in items[:2]] == ["yes", "no"]
    assert "2 labels" in reason


@pytest.mark.parametrize(
    "cell",
    [
        ["x", "y"],
        '["x", "y"]',
        "['x', 'y']",
        "x | y",
        "x; y",
        {"text": ["x", "y"], "label": ["A", "B"]},
        [{"text": "x", "label": "A"}, {"text": "y", "label": "B"}],
        {"A": "x", "B": "y"},
    ],
)
def test_a_list_of_choices_is_read_in_its_usual_forms(cell: Cell) -> None:
    for answer in ("y", "B"):
        items, _ = items_of(read([answer], [cell], names=["choices"]))
        assert items[0].choices == ("x", "y") and items[0].answer == 1


@pytest.mark.parametrize("cell", ["one", 3, "[broken", ["x"], ["x", ""]])
def test_a_cell_without_choices_is_named(cell: Cell) -> None:
    with pytest.raises(TaskError, match=r"line 2.*choice"):
        read(["x"], [cell], names=["choices"])


def test_empty_choices_are_left_out_and_keep_the_letters_of_the_others() -> None:
    items, _ = items_of(read(["C", "A"], ["x", "p"], ["", "q"], ["z", "r"]))
    assert items[0].choices == ("x", "z") and [item.right for item in items] == ["z", "p"]


def test_rows_without_a_question_or_an_answer_are_left_out() -> None:
    found = read(["a", "", None, float("nan"), [], "b", ["", None], {}, [[]], float("inf")])
    assert [item.place for item in found.items] == ["line 2", "line 7"]
    assert found.without_answer == tuple(f"line {line}" for line in (3, 4, 5, 6, 8, 9, 10, 11))
    with pytest.raises(TaskError, match="no row has both"):
        read(["", None])


def test_several_right_answers_are_a_list_for_every_item() -> None:
    items, _ = items_of(read([["Paris", "Lutetia"], "Rome"]), "exact")
    assert [item.answer for item in items] == [("Paris", "Lutetia"), ("Rome",)]


def test_answers_end_at_a_line_break_only_where_all_are_one_line() -> None:
    short, _ = items_of(read(["Paris", "Rome"]))
    long, _ = items_of(read(["Paris", "Rome\nor Paris"]))
    assert propose_stop("exact", short, next_question="\nQ:") == ("\n",)
    assert propose_stop("exact", long, next_question="\nQ:") == ("\nQ:",)
    assert propose_stop("number", short, next_question="") == ()
    assert propose_stop("choices", short, next_question="\nQ:") == ()
    assert propose_limit("exact", short) == 16
    wide, _ = items_of(read(["日" * 30]))
    assert propose_limit("exact", wide) >= 90 + 8
    assert propose_limit("exact", items_of(read(["x" * 5000]))[0]) == 1024
