"""Some items of answers side by side, as they are shown: here, or sent by a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from evomerge.evaluate import CandidateKey, ItemAnswer, Question, Split
from evomerge.search.results.answering import AnsweringModel

Change = Literal["lost", "gained", "differs", "same"]
"""Whether the first model scores less or more on an item than the one it is compared with.

"differs": these two score the same, but another one does not.
"""


@dataclass(frozen=True, kw_only=True)
class GivenAnswer:
    """One model's answer to an item. value: its score there; None if its item results are lost."""

    model: AnsweringModel
    answer: ItemAnswer
    value: float | None


@dataclass(frozen=True, kw_only=True)
class AnsweredItem:
    """An item and its answers, in the order of the models; a model without one is left out.

    metric: of the values; None if the task has none. change: None where one model is alone.
    question: None where texts are left out.
    """

    task: str
    item: int
    metric: str | None
    change: Change | None
    question: Question | None
    answers: tuple[GivenAnswer, ...]


@dataclass(frozen=True, kw_only=True)
class ShownAnswers:
    """Some items of a sheet.

    models, against, titles, remarks: as the sheet has them. items: those that are shown, of `total`
    that were looked for by what changed. asked: how many there are of the task and the number that
    were asked for, whatever changed; counts: the same by what changed.
    """

    split: Split
    models: tuple[AnsweringModel, ...]
    against: AnsweringModel | None
    counts: Mapping[Change, int]
    asked: int
    items: tuple[AnsweredItem, ...]
    total: int
    remarks: tuple[str, ...]
    titles: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with all texts that are kept; `read_shown_answers` reads them back."""
        return {
            "split": self.split,
            "models": [_named(model) for model in self.models],
            "against": None if self.against is None else self.against.label,
            "counts": None if self.against is None else dict(self.counts),
            "asked": self.asked,
            "items": [_plain(item) for item in self.items],
            "total": self.total,
            "remarks": list(self.remarks),
            "titles": dict(self.titles),
        }


def read_shown_answers(document: Mapping[str, Any]) -> ShownAnswers:
    """Items in plain values as what they were."""
    models = tuple(_read_model(entry) for entry in document["models"])
    # The first may have the same label as the one that it is compared with.
    against = next((model for model in models[1:] if model.label == document["against"]), None)
    return ShownAnswers(
        split=document["split"],
        models=models,
        against=against,
        counts=document["counts"] or {},
        asked=document["asked"],
        items=tuple(_read_item(entry) for entry in document["items"]),
        total=document["total"],
        remarks=tuple(document["remarks"]),
        titles=document["titles"],
    )


def _named(model: AnsweringModel) -> dict[str, Any]:
    return {"model": model.label, "role": model.role, "candidate": str(model.key)}


def _read_model(entry: Mapping[str, Any]) -> AnsweringModel:
    return AnsweringModel(
        label=entry["model"], role=entry["role"], key=CandidateKey.parse(entry["candidate"])
    )


def _plain(item: AnsweredItem) -> dict[str, Any]:
    question = item.question
    return {
        "task": item.task,
        "item": item.item,
        "metric": item.metric,
        "change": item.change,
        "prompt": question and question.prompt,
        "target": question and question.target,
        "choices": list(question.choices) if question else [],
        "answers": [
            {
                **_named(given.model),
                "value": given.value,
                "answer": given.answer.said,
                "characters": given.answer.characters,
                "tokens": given.answer.tokens,
                "cut": given.answer.cut,
                "loglikelihoods": list(given.answer.loglikelihoods),
            }
            for given in item.answers
        ],
    }


def _read_item(entry: Mapping[str, Any]) -> AnsweredItem:
    question = None
    if entry["prompt"] is not None:
        choices = tuple(entry["choices"])
        question = Question(prompt=entry["prompt"], target=entry["target"], choices=choices)
    return AnsweredItem(
        task=entry["task"],
        item=entry["item"],
        metric=entry["metric"],
        change=entry["change"],
        question=question,
        answers=tuple(
            GivenAnswer(
                model=_read_model(given),
                answer=_read_answer(given, entry["item"], question),
                value=given["value"],
            )
            for given in entry["answers"]
        ),
    )


def _read_answer(given: Mapping[str, Any], item: int, question: Question | None) -> ItemAnswer:
    likely = tuple(given["loglikelihoods"])
    return ItemAnswer(
        item=item,
        question=None if given["answer"] is None else question,
        text=None if likely else given["answer"],
        characters=given["characters"],
        tokens=given["tokens"],
        cut=given["cut"],
        loglikelihoods=likely,
    )
