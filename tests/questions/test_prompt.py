"""The wording of a question: its fields are filled in, and everything else is text."""

from __future__ import annotations

import pytest
from lm_eval.utils import apply_template

from evomerge.errors import TaskError
from evomerge.questions.prompt import doc_to_text, next_question

HOSTILE = "{{ 7 * 7 }} {% raw %} {# note #} ${x} \r a\\n'\" }} %}"
DOCUMENT = {"question": HOSTILE, "context": "{{question}}"}


def test_what_a_table_holds_is_text_and_no_template() -> None:
    assert apply_template(doc_to_text(None, with_context=False), DOCUMENT) == (
        f"Question: {HOSTILE}\nAnswer:"
    )
    with_context = doc_to_text(None, with_context=True)
    assert apply_template(with_context, DOCUMENT).startswith("{{question}}\n\nQuestion: {{ 7")
    assert apply_template(with_context, {**DOCUMENT, "context": ""}).startswith("Question: ")


@pytest.mark.parametrize("text", [HOSTILE, "{{question}}", "{{other}}", "%}", "\n", "{%if x%}"])
def test_a_users_wording_is_text_but_for_its_fields(text: str) -> None:
    template = doc_to_text(f"{text}{{question}}!{text}\n", with_context=False)
    rendered = apply_template(template, {"question": "Q"})
    assert rendered == f"{text}Q!{text}\n".replace("{question}", "Q")


@pytest.mark.parametrize(
    ("wording", "start"),
    [
        (None, "\nQuestion:"),
        ("質問: {question}\n答え:", "\n質問:"),
        ("\nText: {context}\nQ: {question}", "\nText:"),
        ("{question}", ""),
    ],
)
def test_an_answer_ends_where_a_further_question_would_begin(
    wording: str | None, start: str
) -> None:
    assert next_question(wording) == start


@pytest.mark.parametrize("text", [r"\boxed{answer}", "{}", '{"a": 1}', "a{2}", "{1, 2}", "${x}"])
def test_braces_that_are_no_field_are_text(text: str) -> None:
    template = doc_to_text(f"{{question}} {text}", with_context=False)
    assert apply_template(template, {"question": "Q"}) == f"Q {text}"


@pytest.mark.parametrize("field", ["{foo}", "{quesiton}", "{ question }", "{Question}", "{問}"])
def test_a_misspelt_field_is_refused_with_the_fields_there_are(field: str) -> None:
    said = rf"{field} is no column of the task; a wording may have \{{question\}}"
    with pytest.raises(TaskError, match=rf"{said}, and \{{context\}} with --context COLUMN$"):
        doc_to_text(f"{{question}} {field}", with_context=False)
    with pytest.raises(TaskError, match=rf"{said} and \{{context\}}$"):
        doc_to_text(f"{{context}} {{question}}{field}", with_context=True)


def test_a_question_alone_is_a_column() -> None:
    assert doc_to_text("{question}", with_context=False) == "question"


@pytest.mark.parametrize(
    ("wording", "with_context", "problem"),
    [
        ("Answer this:", False, r"has no \{question\}"),
        ("{context} {question}", False, "there is no column for it"),
        ("Q: {question}", True, r"has no \{context\}"),
        ("{context}{question}", True, "nothing stands between its fields"),
    ],
)
def test_a_wording_that_cannot_work_is_refused(
    wording: str, with_context: bool, problem: str
) -> None:
    with pytest.raises(TaskError, match=problem):
        doc_to_text(wording, with_context=with_context)
