"""Columns are found by their usual names in several languages, by option, or asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import TaskError
from evomerge.questions.columns import Columns, find_columns
from evomerge.questions.table import Table


def columns_of(names: str | Sequence[str], **options: Any) -> Columns:
    listed = tuple(names.split(",") if isinstance(names, str) else names)
    table = Table(
        format="csv",
        path=Path("q.csv"),
        columns=listed,
        rows=(tuple(listed),),
        places=("line 2",),
        sha256="",
    )
    return find_columns(table, **options)


@pytest.mark.parametrize(
    "names",
    [
        "question,answer",
        "Answer,id,QUESTION",
        "Prompt,Target",
        "質問,答え",
        "Frage,Antwort",
        "question_text,réponse",
        "Pregunta,Respuesta correcta,respuesta",
        "问题,答案",
        "Q,A",
        "input,expected output",
        "question,prompt,answer,output",
    ],
)
def test_usual_names_are_found(names: str) -> None:
    found = columns_of(names)
    assert found.choices == () and found.context is None
    assert found.question != found.answer
    assert {found.question, found.answer} <= set(names.split(","))


@pytest.mark.parametrize(
    ("names", "choices"),
    [
        ("question,A,B,C,D,answer", ("A", "B", "C", "D")),
        ("q,choice1,choice2,choice3,label", ("choice1", "choice2", "choice3")),
        ("q,Option B,Option A,correct", ("Option A", "Option B")),
        ("q,ending0,ending1,ending2,ending3,label", ("ending0", "ending1", "ending2", "ending3")),
        ("frage,Auswahl,antwort", ("Auswahl",)),
        ("質問,選択肢1,選択肢2,正解", ("選択肢1", "選択肢2")),
        ("question,choices,answerKey", ("choices",)),
        ("question,opa,opb,opc,opd,cop", ("opa", "opb", "opc", "opd")),
    ],
)
def test_choices_are_found_in_one_column_or_in_several(
    names: str, choices: tuple[str, ...]
) -> None:
    assert columns_of(names).choices == choices


def test_a_context_is_found_and_none_turns_it_off() -> None:
    assert columns_of("passage,question,answer").context == "passage"
    assert columns_of("passage,question,answer", context="none").context is None
    assert columns_of("question,A,B,answer", choices="none").choices == ()


def test_options_name_columns_whatever_they_are_called() -> None:
    names = ["{{ x }}", "a: b\n- c", "'", "!function os.system"]
    found = columns_of(names, question=names[0], answer=names[1], choices=names[2:])
    assert found.used == (names[0], *names[2:], names[1])
    assert columns_of("x,y,z,w", question="x", answer="y", choices="z, w").choices == ("z", "w")


@pytest.mark.parametrize(
    ("names", "options", "problem"),
    [
        ("foo,bar", {}, "which column is the question.*'foo', 'bar'; give --question COLUMN"),
        ("prompt,query,answer", {}, "which column is the question"),
        ("question,foo", {}, "which column is the answer"),
        ("question,answer", {"question": "frage"}, "--question 'frage': .*no such column"),
        ("question,answer", {"answer": "question"}, "which column is the question"),
        ("a,answer", {"question": "a", "context": "a"}, "is given for two parts"),
        ("question,answer", {"choices": "a,b"}, "--choices 'a': .*no such column"),
        ("question,answer,passage,story", {}, "which column is the context.*or none"),
        (["How many eggs " + "x" * 60, "18"], {}, "--no-header"),
    ],
)
def test_what_is_not_clear_is_refused_with_the_option_to_give(
    names: str | list[str], options: dict[str, str], problem: str
) -> None:
    with pytest.raises(TaskError, match=problem):
        columns_of(names, **options)


def test_a_user_is_asked_only_for_what_is_not_clear() -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []

    def ask(role: str, columns: Sequence[str]) -> str:
        asked.append((role, tuple(columns)))
        return columns[-1]

    assert columns_of("prompt,query,foo,bar", ask=ask).used == ("query", "bar")
    assert asked == [("question", ("prompt", "query")), ("answer", ("prompt", "foo", "bar"))]
    columns_of("question,answer", ask=ask)
    assert len(asked) == 2
