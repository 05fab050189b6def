"""A table's rows as items: question, context, choices, and the answer as its kind needs it.

Texts stay as they are; only spaces around them go, and a letter and its accent become one sign, as
models write it. Nothing of a row is ever a template, a formula
or a file name.
"""

from __future__ import annotations

import ast
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from evomerge.errors import TaskError
from evomerge.questions.columns import Columns, choice_label
from evomerge.questions.table import Cell, Table, shown, text_of

Answer: TypeAlias = "str | int | tuple[str, ...]"
"""A text, the place of the right choice, or several texts."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question. place: its line or row in the file."""

    place: str
    question: str
    answer: Answer
    context: str = ""
    choices: tuple[str, ...] = ()

    def document(self, *, with_context: bool) -> dict[str, Any]:
        """What the task's data file holds; the same content is the same item."""
        document: dict[str, Any] = {"question": self.question}
        if with_context:
            document["context"] = self.context
        if self.choices:
            document["choices"] = list(self.choices)
        document["answer"] = list(self.answer) if isinstance(self.answer, tuple) else self.answer
        return document

    @property
    def asked(self) -> tuple[str, ...]:
        """What is asked, without the answer."""
        return (self.context, self.question, *self.choices)

    @property
    def right(self) -> str:
        """The right answer as text; the first one of several."""
        if isinstance(self.answer, int):
            return self.choices[self.answer]
        return self.answer if isinstance(self.answer, str) else self.answer[0]


@dataclass(frozen=True, kw_only=True)
class Read:
    """Items with their answers as in the table, and the places of rows that have none.

    answers: the cells. listed: whether the choices have a column or columns.
    """

    items: tuple[Item, ...]
    answers: tuple[Cell, ...]
    labels: tuple[tuple[str, ...], ...]
    """For each item the labels of its choices (letters, numbers, names of columns)."""
    without_question: tuple[str, ...]
    without_answer: tuple[str, ...]
    listed: bool


def read_items(table: Table, columns: Columns) -> Read:
    """The rows that have a question and an answer, in order. Raises TaskError if there are none."""
    questions, cells = table.column(columns.question), table.column(columns.answer)
    contexts = table.column(columns.context) if columns.context else [None] * len(cells)
    choice_columns = [table.column(name) for name in columns.choices]
    names = tuple(choice_label(name) for name in columns.choices)
    items: list[Item] = []
    answers: list[Cell] = []
    labels: list[tuple[str, ...]] = []
    no_question, no_answer = [], []
    for number, place in enumerate(table.places):
        question, cell = text_of(questions[number]), cells[number]
        if not question:
            no_question.append(place)
            continue
        if not _has_text(cell):
            no_answer.append(place)
            continue
        where = f"{table.path}: {place}"
        found = [column[number] for column in choice_columns]
        if len(found) == 1:
            choices, own = _listed_choices(found[0], f"{where}: {shown(columns.choices[0])}")
        else:
            texts = [text_of(choice) for choice in found]
            choices = tuple(text for text in texts if text)
            own = tuple(name for name, text in zip(names, texts, strict=True) if text)
        if columns.choices and len(choices) < 2:
            raise TaskError(
                f"{where}: has {len(choices)} choices; give two or more, or remove the row"
            )
        items.append(
            Item(
                place=place,
                question=question,
                answer="",
                context=text_of(contexts[number]),
                choices=choices,
            )
        )
        answers.append(cell)
        labels.append(own)
    if not items:
        raise TaskError(
            f"{table.path}: no row has both a question in {shown(columns.question)} and an answer "
            f"in {shown(columns.answer)}; fill them in, or name other columns"
        )
    return Read(
        items=tuple(items),
        answers=tuple(answers),
        labels=tuple(labels),
        without_question=tuple(no_question),
        without_answer=tuple(no_answer),
        listed=bool(columns.choices),
    )


def _has_text(cell: Cell) -> bool:
    """Whether a cell says anything; a list of empty cells does not."""
    parts = cell if isinstance(cell, list) else [cell]
    return any(part not in ([], {}) and text_of(part) for part in parts)


def _listed_choices(cell: Cell, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The choices in one cell and their labels: a list, a list as text, or texts between |."""
    labels: Sequence[Cell] = ()
    if isinstance(cell, Mapping) and "text" in cell:  # texts and labels, as ARC has them
        labels, cell = cell.get("label") or (), cell["text"]
    elif isinstance(cell, Mapping):
        labels, cell = list(cell), list(cell.values())
    if isinstance(cell, str):
        cell = _as_list(cell)
    if not isinstance(cell, list):
        raise TaskError(f'{where}: not a list of choices; write ["one", "two"], or one | two')
    if cell and all(isinstance(choice, Mapping) and "text" in choice for choice in cell):
        labels = [choice.get("label") for choice in cell]
        cell = [choice["text"] for choice in cell]
    choices = tuple(text_of(choice) for choice in cell)
    if not all(choices):
        raise TaskError(f"{where}: has an empty choice; fill it in, or remove it")
    own = tuple(text_of(label) for label in labels)
    return choices, own if len(own) == len(choices) else ()


def _as_list(text: str) -> object:
    if text.lstrip().startswith("["):
        for read in (json.loads, ast.literal_eval):
            try:
                found: object = read(text.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            return found
        return None
    for sign in ("|", "\n", ";"):
        if sign in text:
            return [part for part in text.split(sign) if part.strip()]
    return None


# The right choice, in the ways in which tables name it. One way must fit every row.


def answered_by_choice(
    read: Read, *, where: str, count_from: int | None = None
) -> tuple[tuple[Item, ...], str]:
    """The items with the place of their right choice, and in words how the answers name it.

    An answer may be a choice's text, its letter or label, or its number. count_from: the number of
    the first choice, 0 or 1, where answers are numbers. Raises TaskError for an answer that is no
    choice, and where numbers fit from 0 and from 1.
    """
    texts = [_answer_text(cell) for cell in read.answers]
    rows = list(zip(texts, read.items, read.labels, strict=True))
    named: dict[str, list[int | None]] = {
        "an answer is a choice's text": [_place(text, item.choices) for text, item, _ in rows],
        "an answer is a choice's label": [_place(text, own) for text, _, own in rows],
        "an answer is a choice's letter": [
            _place(text, _LETTERS[: len(item.choices)]) for text, item, _ in rows
        ],
    }
    numbered: dict[str, list[int | None]] = {
        f"an answer is a choice's number, from {first}": _numbered(read, texts, first)
        for first in ((0, 1) if count_from is None else (count_from,))
    }
    ways = {**(named if count_from is None else {}), **numbered}
    fitting = [said for said, places in ways.items() if None not in places]
    if len(fitting) > 1 and fitting[0] in numbered:
        raise TaskError(
            f"{where}: the answers are numbers that could count the choices from 0 or from 1; give "
            "--count-from 0 or --count-from 1"
        )
    if fitting:
        return _with_places(read.items, ways[fitting[0]]), fitting[0]
    closest = min(ways.values(), key=lambda places: places.count(None))
    wrong = closest.index(None)
    raise TaskError(
        f"{where}: {read.items[wrong].place}: the answer {shown(texts[wrong])} is none of its "
        f"{len(read.items[wrong].choices)} choices; mend it, or give --choices none to ask without "
        "choices"
    )


_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")


def _answer_text(cell: Cell) -> str:
    if isinstance(cell, list) and len(cell) == 1:
        cell = cell[0]
    return text_of(cell)


def _place(text: str, choices: Sequence[str]) -> int | None:
    """The place of the only choice with this text, whatever its case; None where it is none."""
    if text in choices:
        return choices.index(text)
    plain = _plain(text)
    found = [place for place, choice in enumerate(choices) if _plain(choice) == plain]
    return found[0] if len(found) == 1 else None


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip("() .").casefold()


def _numbered(read: Read, texts: Sequence[str], first: int) -> list[int | None]:
    places: list[int | None] = []
    for text, item in zip(texts, read.items, strict=True):
        short = text.isascii() and text.isdigit() and len(text) < 4
        place = int(text) - first if short else -1
        places.append(place if 0 <= place < len(item.choices) else None)
    return places


def _with_places(items: Sequence[Item], places: Sequence[int | None]) -> tuple[Item, ...]:
    return tuple(
        replace(item, answer=place)
        for item, place in zip(items, places, strict=True)
        if place is not None
    )


def answered_by_labels(read: Read, labels: Sequence[str]) -> tuple[Item, ...]:
    """The items with the same choices for all: the labels that occur as answers."""
    places = {label: place for place, label in enumerate(labels)}
    return tuple(
        replace(item, choices=tuple(labels), answer=places[text_of(cell)])
        for item, cell in zip(read.items, read.answers, strict=True)
    )


def answered_by_text(
    read: Read, check: Callable[[str], str | None], *, where: str, several: bool
) -> tuple[Item, ...]:
    """The items with their answers as text.

    check: what is wrong with an answer of this kind and the mend, or None. several: whether a list
    in a cell is several answers; then every item has a list.
    """
    lists = several and any(isinstance(cell, list) for cell in read.answers)
    items = []
    for item, cell in zip(read.items, read.answers, strict=True):
        parts = cell if lists and isinstance(cell, list) else [cell]
        texts = tuple(text for part in parts if (text := text_of(part)))
        for text in texts:
            problem = check(text)
            if problem is not None:
                raise TaskError(f"{where}: {item.place}: the answer {shown(text)} {problem}")
        items.append(replace(item, answer=texts if lists else texts[0], choices=()))
    return tuple(items)


def most_common(items: Sequence[Item]) -> tuple[str, int]:
    """The most common right answer, and how many items it is right for."""
    [(text, count)] = Counter(item.right for item in items).most_common(1)
    return text, count
