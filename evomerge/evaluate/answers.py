"""What a model answered, item by item, kept to be looked at: bounded, and apart from scores.

No score is computed from it. Texts are those of models and tasks, so whatever shows them must
escape them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

MOST_BYTES = 4 * 2**20
"""Of all texts of one model's answers, in UTF-8; texts of further items are left out."""

ELLIPSIS = "…"


@dataclass(frozen=True, kw_only=True)
class Question:
    """What an item asks.

    prompt: its end. target: the wanted answer, as the task states it. choices: what the model
    chooses from, in the order of its log-likelihoods; empty where it generates.
    """

    prompt: str
    target: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ItemAnswer:
    """What one model answered to one item.

    item: its position in the task. question: None where the texts are left out, because the answers
    of the model or of the run take too much room. text: a generated answer, cut at its stop texts,
    before the task's filters; None for choices, and where texts are left out. characters: how many
    the whole text had. tokens, cut: see Generated. loglikelihoods: of the choices, in nats.
    """

    item: int
    question: Question | None
    text: str | None = None
    characters: int | None = None
    tokens: int | None = None
    cut: bool | None = None
    loglikelihoods: tuple[float, ...] = ()

    @property
    def generated(self) -> bool:
        """Whether the answer was generated, and not chosen."""
        return not self.loglikelihoods

    @property
    def chosen(self) -> int | None:
        """The number of the likeliest choice, the first of equal ones; None if it was generated."""
        return max(
            range(len(self.loglikelihoods)), key=self.loglikelihoods.__getitem__, default=None
        )

    @property
    def said(self) -> str | None:
        """The text, or the likeliest choice; None where texts are left out."""
        if self.generated or self.question is None:
            return self.text
        if self.chosen is None or self.chosen >= len(self.question.choices):
            return None
        return self.question.choices[self.chosen]


@dataclass(frozen=True, kw_only=True)
class TaskAnswers:
    """The answers to the items of a task. lower_is_better: such metrics of the task."""

    items: tuple[ItemAnswer, ...]
    lower_is_better: tuple[str, ...] = ()


Answers = Mapping[str, TaskAnswers]
"""task -> the answers of one model."""


def bounded(answers: Answers, *, most_bytes: int = MOST_BYTES) -> Answers:
    """The answers without the texts that do not fit; every task gets the same share of the room."""
    share = most_bytes // max(1, len(answers))
    return {task: _bounded(kept, share) for task, kept in answers.items()}


def _bounded(answers: TaskAnswers, most_bytes: int) -> TaskAnswers:
    kept, used = [], 0
    for answer in answers.items:
        used += _bytes_of(answer)
        kept.append(answer if used <= most_bytes else replace(answer, question=None, text=None))
    return replace(answers, items=tuple(kept))


def _bytes_of(answer: ItemAnswer) -> int:
    question = answer.question
    texts = [answer.text or ""]
    if question is not None:
        texts += [question.prompt, question.target, *question.choices]
    return sum(len(text.encode()) for text in texts)


def shorten(text: str, characters: int) -> str:
    """The beginning of a text, with an ellipsis where something is left out."""
    clean = whole_characters(text)
    return clean if len(clean) <= characters else clean[: characters - 1] + ELLIPSIS


def end_of(text: str, characters: int) -> str:
    """The end of a text, with an ellipsis where something is left out."""
    clean = whole_characters(text)
    return clean if len(clean) <= characters else ELLIPSIS + clean[1 - characters :]


def whole_characters(text: str) -> str:
    """The text without halves of characters, which no file can hold."""
    return text.encode("utf-8", "replace").decode()
