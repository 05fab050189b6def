"""What kind of answer is asked for, proposed from the answers with the reason in words.

The kind says how an answer is scored: see KINDS.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from evomerge.errors import TaskError
from evomerge.questions.expressions import expression_problem, is_expression
from evomerge.questions.items import (
    Item,
    Read,
    answered_by_choice,
    answered_by_labels,
    answered_by_text,
)
from evomerge.questions.shipped.last_number import find_numbers, read_last_number
from evomerge.questions.table import Cell, shown, text_of

Kind = Literal["choices", "exact", "number", "json", "contains", "regex"]
KINDS: tuple[Kind, ...] = get_args(Kind)

METRICS: Mapping[Kind, tuple[str, ...]] = {
    "choices": ("acc", "acc_norm"),
    "exact": ("exact_match",),
    "number": ("right_number",),
    "json": ("right_fields", "all_right", "valid_json"),
    "contains": ("contains", "contains_share"),
    "regex": ("matches",),
}
"""Kind -> its metrics, the one to search with first."""

_MOST_LABELS = 8
_LONGEST_LABEL = 40
_ROWS_A_LABEL = 5
_MOST_STOPPED_TOKENS = 1024
_REASONING_TOKENS = 512
_ANSWER_TOKENS = 256
_SHORTEST_TOKENS = 16

_NUMBER = re.compile(
    r"[^\w\s]{0,2}\s?[-+−]?[^\w\s]{0,2}\d[\d,.'\u00a0\u202f ]*(?:\s?[^\W\d_]{0,4}|\s?[%°€¥£$]\w?)"
)
"""A number alone, perhaps with a sign of money before it or a short unit after it."""
_JOINT = re.compile(r"[.,'’/:\-–]?|[ \t\u00a0\u2009\u202f]|[eE][-+]?")
"""What stands between two parts of one number, date or fraction: 1.234,56 and 1 234 and 1e5."""
_RESULT = "####"
"""Before the result at the end of a worked answer, as GSM8K writes it."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A kind and why. labels: for choices that are the same for all items, those."""

    kind: Kind
    reason: str
    labels: tuple[str, ...] = ()


def propose_kind(read: Read, kind: str | None = None) -> Proposal:
    """The kind of the answers; the user's own where `kind` is given.

    Raises TaskError for a name that is no kind, and for choices where there are none.
    """
    if kind is not None and kind not in KINDS:
        raise TaskError(f"--kind {kind}: no such kind of answer; give {', '.join(KINDS)}")
    texts = [text_of(cell) for cell in read.answers]
    labels = _labels(texts)
    if kind == "choices" and not read.listed:
        labels = labels or _labels(texts, rows_a_label=1)
        if not labels:
            raise TaskError(
                f"--kind choices: there are no choices, and the answers have "
                f"{len(set(texts)):,} different texts; name the choices' columns with --choices"
            )
        return Proposal(kind="choices", reason=_says_labels(labels), labels=labels)
    for name in KINDS:
        if kind == name:
            return Proposal(kind=name, reason="as you said")
    if read.listed:
        counts = sorted({len(item.choices) for item in read.items})
        said = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return Proposal(kind="choices", reason=f"every question has {said} choices")
    for name, fits, reason in _SIGNS:
        if all(fits(cell) for cell in read.answers):
            return Proposal(kind=name, reason=reason)
    if labels:
        return Proposal(kind="choices", reason=_says_labels(labels), labels=labels)
    if any(len(text.split()) > 12 or "\n" in text for text in texts):
        return Proposal(
            kind="exact",
            reason="the answers are texts; some are long, and a model rarely says a long text word "
            "for word: --kind contains or --kind regex may suit better",
        )
    return Proposal(kind="exact", reason="the answers are short texts")


def _says_labels(labels: Sequence[str]) -> str:
    return f"all answers are one of {len(labels)} labels: {', '.join(map(shown, labels))}"


def _labels(texts: Sequence[str], rows_a_label: int = _ROWS_A_LABEL) -> tuple[str, ...]:
    """The different answers, in order, if they are a few short ones that come again and again."""
    counted = Counter(texts)
    few = 2 <= len(counted) <= _MOST_LABELS and len(texts) >= rows_a_label * len(counted)
    if not few or any(len(text) > _LONGEST_LABEL or "\n" in text for text in counted):
        return ()
    return tuple(sorted(counted))


def _is_json(cell: Cell) -> bool:
    return _object_of(cell) is not None


def _object_of(cell: Cell) -> dict[str, object] | None:
    """The JSON object that a cell is or holds as text."""
    if isinstance(cell, str) and cell.strip().startswith("{"):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            return None
    return cell if isinstance(cell, dict) and cell else None


def _is_number(cell: Cell) -> bool:
    if isinstance(cell, bool):
        return False
    text = text_of(cell)
    plain = isinstance(cell, int | float) or _NUMBER.fullmatch(text) or _ends_in_result(text)
    return bool(plain) and read_last_number(text) is not None


def _ends_in_result(text: str) -> bool:
    """Whether the last word is a result with a digit; some text would keep a pattern for hours."""
    *before, last = text.split()[-2:] or [""]
    result = last.partition(_RESULT)[2]
    if before and before[0].endswith(_RESULT):
        result = last
    return re.search(r"\d", result) is not None


def _is_pattern(cell: Cell) -> bool:
    text = text_of(cell)
    framed = len(text) > 2 and ((text[0], text[-1]) in (("^", "$"), ("/", "/")))
    return framed and is_expression(text)


def _is_list(cell: Cell) -> bool:
    return isinstance(cell, list) and all(isinstance(part, str) for part in cell)


_SIGNS: tuple[tuple[Kind, Callable[[Cell], bool], str], ...] = (
    ("json", _is_json, "every answer is a JSON object"),
    ("number", _is_number, "every answer is a number, or ends with one"),
    ("regex", _is_pattern, "every answer is a regular expression (^...$ or /.../)"),
    ("contains", _is_list, "every answer is a list of texts, all of which must be said"),
)


def _number_problem(text: str) -> str | None:
    found = read_last_number(text)
    if found is None:
        return "has no number; write it in digits, or give --kind exact"
    places = [number.span() for number in find_numbers(text)]
    if len(places) > 1 and _JOINT.fullmatch(text[places[-2][1] : places[-1][0]]):
        return (
            f"would be read as its last part, {found:g}; write it as 1234.56 or 1,234.56, or give "
            "--kind exact"
        )
    return None


def _object_problem(text: str) -> str | None:
    return None if _is_json(text) else 'is no JSON object; write {"field": "value"}'


def answered(
    read: Read, proposal: Proposal, *, where: str, count_from: int | None = None
) -> tuple[tuple[Item, ...], str]:
    """The items with their answers as the kind needs them, and the reason in words.

    Raises TaskError that names the row.
    """
    kind = proposal.kind
    if kind == "choices" and not proposal.labels:
        items, said = answered_by_choice(read, where=where, count_from=count_from)
        return items, f"{proposal.reason}; {said}"
    if kind == "choices" and count_from is None:
        return answered_by_labels(read, proposal.labels), proposal.reason
    if count_from is not None:
        raise TaskError(
            "--count-from: there are no columns with choices; leave it out, or give --choices"
        )
    checks: Mapping[str, Callable[[str], str | None]] = {
        "number": _number_problem,
        "json": _object_problem,
        "regex": expression_problem,
    }
    items = answered_by_text(
        read,
        checks.get(kind, lambda _text: None),
        where=where,
        several=kind in ("exact", "contains"),
    )
    return items, proposal.reason


# How a generated answer ends.


def propose_stop(kind: Kind, items: Sequence[Item], *, next_question: str) -> tuple[str, ...]:
    """Texts that end an answer: a line break where every right answer is one line.

    next_question: how a further question would begin; it ends longer answers.
    """
    if kind == "choices":
        return ()
    if kind == "exact" and all("\n" not in text for item in items for text in _texts(item)):
        return ("\n",)
    return (next_question,) if next_question else ()


def propose_limit(kind: Kind, items: Sequence[Item]) -> int:
    """The most tokens of an answer. No tokenizer needs more tokens than bytes for a text."""
    longest = max(len(text.encode()) for item in items for text in _texts(item))
    room = {"exact": _SHORTEST_TOKENS, "number": _REASONING_TOKENS}.get(kind, _ANSWER_TOKENS)
    needed = longest + 8 if kind in ("exact", "json") else room
    return min(_MOST_STOPPED_TOKENS, max(room, -(-needed // 8) * 8))


def _texts(item: Item) -> tuple[str, ...]:
    return item.answer if isinstance(item.answer, tuple) else (item.right,)
