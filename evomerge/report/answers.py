"""Answers side by side, for a terminal and for the report.

They are texts of models and tasks. The command escapes what a terminal would obey, the page what a
browser would; here only their length and their lines are bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from evomerge.errors import RunError, visible
from evomerge.evaluate import ItemAnswer, end_of, shorten
from evomerge.report.words import count_text, one_line
from evomerge.search import (
    AnsweredItem,
    AnsweringModel,
    CutAnswers,
    CutShare,
    GivenAnswer,
    ShownAnswers,
    compare_answers,
    cut_answers,
)
from evomerge.study import Study

_LABEL_CHARACTERS = 24
_CHOICE_CHARACTERS = 16
_CHOICES_SHOWN = 8
_TAB = 4
_ASKED_CHARACTERS = 240
_ASKED_LINES = 4
_SAID_CHARACTERS = 400
_SAID_LINES = 6

ITEMS_ON_PAGE = 40
"""Most items that the report shows; `evomerge answers` shows them all."""

_PAGE_CHARACTERS = 600
_CHANGES = {"lost": "lost", "gained": "gained", "differs": "others differ", "same": "the same"}


def answer_lines(shown: ShownAnswers, *, whole: bool = False) -> Iterator[str]:
    """Items of a sheet for a terminal: what changed, then the items.

    whole: whether every text is shown as long as it is kept.
    """
    yield summary_of(shown)
    yield from (f"note: {one_line(remark)}" for remark in shown.remarks)
    for item in shown.items:
        yield ""
        yield from _item_lines(item, whole=whole)
    if len(shown.items) < shown.total:
        more = shown.total - len(shown.items)
        yield ""
        yield f"and {count_text(more, 'more item')} (--limit {shown.total} shows all)"


def summary_of(shown: ShownAnswers) -> str:
    """How many of the items asked for changed, in a sentence, whichever of them are shown."""
    items = count_text(shown.asked, f"{shown.split} item")
    first = _name(shown.models[0])
    if shown.against is None:
        return f"{items} answered by {first}"
    counts = ", ".join(
        f"{count:,} {_CHANGES[change]}"
        for change, count in shown.counts.items()
        if count or change in ("lost", "gained")
    )
    pair = " against ".join(_titled(model, shown) for model in (shown.models[0], shown.against))
    return f"{items}; {pair}: {counts}"


def _titled(model: AnsweringModel, shown: ShownAnswers) -> str:
    """Its name, and what it stands for if the name does not say it."""
    title = None if model.role == "winner" else shown.titles.get(model.label)
    return _name(model) if title is None else f"{_name(model)} ({title})"


def _item_lines(item: AnsweredItem, *, whole: bool) -> Iterator[str]:
    metric = f", {item.metric}" if item.metric else ""
    change = f": {_CHANGES[item.change]}" if item.change else ""
    yield one_line(f"{item.task} item {item.item}{change}{metric}")
    rows: list[tuple[str, Sequence[str]]] = []
    if item.question is not None:
        prompt = item.question.prompt
        asked = _lines(prompt if whole else end_of(prompt, _ASKED_CHARACTERS))
        rows.append(("asked", asked if whole else asked[-_ASKED_LINES:]))
        rows.append(("wanted", _lines(item.question.target)))
    rows += [(_name(given.model), _said_lines(given, whole=whole)) for given in item.answers]
    width = max(len(name) for name, _ in rows)
    for name, lines in rows:
        for number, line in enumerate(lines or [""]):
            yield f"  {name if number == 0 else '':<{width}}  {line}".rstrip()


def _said_lines(given: GivenAnswer, *, whole: bool) -> list[str]:
    value = "?" if given.value is None else f"{given.value:g}"
    said = given.answer.said
    text = _words(said, None if whole else _SAID_CHARACTERS)
    lines = _lines(text) or [""]
    if not whole and len(lines) > _SAID_LINES:
        lines = [*lines[:_SAID_LINES], "…"]
    first = f"[{value}] {lines[0]}"
    facts = _facts(given.answer)
    return [first, *lines[1:], *([f"({facts})"] if facts else [])]


def _words(said: str | None, characters: int | None) -> str:
    """An answer up to so many characters, or what stands for one that shows nothing."""
    if said is None:
        return "(not kept)"
    if not said.strip():
        return "(empty)" if not said else "(only spaces)"
    return said if characters is None else shorten(said, characters)


def _facts(answer: ItemAnswer) -> str:
    """How an answer ended, or the log-likelihoods that it was chosen by, in words."""
    if not answer.generated:
        values = answer.loglikelihoods
        named = () if answer.question is None else answer.question.choices
        likely = [f"{value:.2f}" for value in values]
        if len(named) == len(likely) > 1:
            likely = [
                f"{one_line(shorten(choice, _CHOICE_CHARACTERS))} {value}"
                for choice, value in zip(named, likely, strict=True)
            ]
        if len(likely) > _CHOICES_SHOWN:
            best = sorted(range(len(values)), key=lambda place: -values[place])[:_CHOICES_SHOWN]
            more = f"the likeliest of {len(likely):,}"
            return f"log-likelihood: {', '.join(likely[place] for place in best)} ({more})"
        return f"log-likelihood: {', '.join(likely)}"
    facts = []
    if answer.text is not None and answer.characters and answer.characters > len(answer.text):
        facts.append(f"{len(answer.text):,} of {answer.characters:,} characters kept")
    if answer.cut:
        facts.append(f"cut off at the limit of {count_text(answer.tokens or 0, 'token')}")
    return ", ".join(facts)


def _name(model: AnsweringModel) -> str:
    return shorten(one_line(model.called), _LABEL_CHARACTERS)


# The section of the report.


@dataclass(frozen=True, kw_only=True)
class PageAnswer:
    """A cell: what a model said, its score, and facts on the answer. won: for a score above 0."""

    said: str
    value: str
    facts: str


@dataclass(frozen=True, kw_only=True)
class PageItem:
    """A row: the item, what it asked and wanted, and a cell for each model; None where it is not.

    asked, wanted, said: texts in which nothing can be obeyed, with their own line breaks.
    """

    task: str
    item: int
    change: str
    asked: str
    wanted: str
    cells: tuple[PageAnswer | None, ...]


@dataclass(frozen=True, kw_only=True)
class CutRow:
    """A task: how many answers each model gave, and for each how many of them were cut off."""

    task: str
    answers: int
    cells: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AnswersPart:
    """What the report shows of answers.

    models: the heads of the columns. items: those where the models differ. more: how many of these
    are left out. summary, remarks: sentences; None and empty where no answers were kept.
    """

    models: tuple[str, ...]
    items: tuple[PageItem, ...]
    more: int
    summary: str | None
    remarks: tuple[str, ...]
    cut: CutAnswers

    @property
    def cut_models(self) -> tuple[str, ...]:
        """The heads of the columns of the table of answers that were cut off."""
        return tuple(shorten(one_line(label), _LABEL_CHARACTERS) for label in self._cut_labels)

    @property
    def cut_rows(self) -> tuple[CutRow, ...]:
        """A row for each task that is answered in words."""
        found = {(entry.task, entry.label): entry for entry in self.cut.shares}
        return tuple(
            CutRow(
                task=task,
                answers=max(entry.answers for entry in self.cut.shares if entry.task == task),
                cells=tuple(_cut_text(found.get((task, label))) for label in self._cut_labels),
            )
            for task in self.cut.tasks
        )

    @property
    def _cut_labels(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(entry.label for entry in self.cut.shares))


def _cut_text(entry: CutShare | None) -> str:
    if entry is None:
        return "–"
    if entry.share is None:
        return "not known"
    return f"{entry.share:.0%} ({entry.cut:,})" if entry.cut else "0%"


def answers_part(study: Study) -> AnswersPart | None:
    """What the report shows of answers; None where none were kept."""
    read = cache(study.answers_of)  # most of the report's time otherwise: both read the same files
    cut = cut_answers(study, read=read)
    if not any(trial.answers is not None for trial in study.trials):
        return None
    try:
        sheet = compare_answers(study, read=read)
    except RunError as error:
        return AnswersPart(
            models=(), items=(), more=0, summary=None, remarks=(f"{error}.",), cut=cut
        )
    changed = sheet.only(("lost", "gained", "differs"))
    shown = changed.mixed(ITEMS_ON_PAGE)
    return AnswersPart(
        models=tuple(_name(model) for model in sheet.models),
        items=tuple(_page_item(item, sheet.models) for item in shown.items),
        more=len(changed.items) - len(shown.items),
        summary=summary_of(sheet.shown()),
        remarks=tuple(dict.fromkeys([*sheet.remarks, *cut.left_out])),
        cut=cut,
    )


def _page_item(item: AnsweredItem, models: Sequence[AnsweringModel]) -> PageItem:
    given = {each.model: _page_answer(each) for each in item.answers}
    question = item.question
    return PageItem(
        task=item.task,
        item=item.item,
        change=_CHANGES[item.change] if item.change else "",
        asked="" if question is None else shown_text(end_of(question.prompt, _ASKED_CHARACTERS)),
        wanted="" if question is None else shown_text(shorten(question.target, _ASKED_CHARACTERS)),
        cells=tuple(given.get(model) for model in models),
    )


def _page_answer(given: GivenAnswer) -> PageAnswer:
    said = given.answer.said
    return PageAnswer(
        said=shown_text(_words(said, _PAGE_CHARACTERS)),
        value="" if given.value is None else f"{given.value:g}",
        facts=_facts(given.answer),
    )


def shown_text(text: str) -> str:
    """The text in its lines, with escapes for signs that change how others are shown."""
    return "\n".join(visible(line) for line in _lines(text))


def _lines(text: str) -> list[str]:
    """Its lines, with spaces for tabs, which are no marks to be escaped."""
    return [line.expandtabs(_TAB) for line in text.splitlines()]
