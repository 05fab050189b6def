"""The wording of a question, as the template that lm-eval fills in.

A user's wording has {question} and {context}; every other sign of it is text, also a brace. Only
another name in braces is refused, since it is most likely a misspelt field. What the table holds is
put in as it is: lm-eval never reads it as a template.
"""

from __future__ import annotations

import re
import string

from evomerge.errors import TaskError
from evomerge.questions.table import shown

_PLAIN = "Question: {question}\nAnswer:"
_FIELD = re.compile(r"\{(question|context)\}")
# Not ${name}, \boxed{name} and {{name}}, which are written on purpose.
_NAMED = re.compile(r"(?:\\[A-Za-z]+|\$|\{)\{|(\{ *[^\W\d][\w.-]* *\})")
_SPECIAL = re.compile(r"[{}\r]")


def doc_to_text(wording: str | None, *, with_context: bool) -> str:
    """The task's `doc_to_text` for a wording; the usual one if None is given. Raises TaskError."""
    if wording is None:
        if not with_context:
            return _template(_PLAIN)
        # Some items have no context.
        return "{% if context %}{{context}}\n\n{% endif %}" + _template(_PLAIN)
    fields = set(_FIELD.findall(wording))
    known = "{question} and {context}" if with_context else "{question}"
    for named in _NAMED.findall(wording):
        if named and not _FIELD.fullmatch(named):
            more = "" if with_context else ", and {context} with --context COLUMN"
            raise TaskError(
                f"--prompt {shown(wording)}: {named} is no column of the task; a wording may have "
                f"{known}{more}"
            )
    if "question" not in fields:
        raise TaskError(
            f"--prompt {shown(wording)}: has no {{question}}; write where the question stands"
        )
    if "context" in fields and not with_context:
        raise TaskError(
            f"--prompt {shown(wording)}: has {{context}}, and there is no column for it; give "
            "--context COLUMN"
        )
    if with_context and "context" not in fields:
        raise TaskError(
            f"--prompt {shown(wording)}: has no {{context}}; write where it stands, or give "
            "--context none"
        )
    if wording == "{question}":
        return "question"  # a column is taken as it is; a template of digits would become a number
    if not _FIELD.sub("", wording).strip(string.digits):
        raise TaskError(
            f"--prompt {shown(wording)}: nothing stands between its fields; write a word or a line "
            "break between them"
        )
    return _template(wording)


def next_question(wording: str | None) -> str:
    """How a further question would begin, if a model went on to write one; empty if unknown."""
    before = _FIELD.split(_PLAIN if wording is None else wording)[0]
    first = next((line.strip() for line in before.splitlines() if line.strip()), "")
    return f"\n{first}" if first else ""


def _template(wording: str) -> str:
    """A wording as Jinja: its fields are looked up, everything else is text."""
    parts = _FIELD.split(wording)
    return "".join(
        f"{{{{{part}}}}}" if place % 2 else _text(part) for place, part in enumerate(parts)
    )


def _text(text: str) -> str:
    """A text that Jinja prints as it is."""
    # Jinja would read a carriage return as a line break.
    return _SPECIAL.sub(lambda sign: f"{{{{{sign[0]!r}}}}}", text)
