"""How many answers were cut off at the token limit, of the winner and of what it is compared with.

A model whose answers are cut off more often may score less for that reason alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evomerge.errors import RunError
from evomerge.evaluate import Answers, CandidateKey, Role, share_differences
from evomerge.search.results.answering import AnsweringModel, models_on
from evomerge.search.results.claim import interval_words
from evomerge.search.results.points import outcome_of
from evomerge.study import Study

_CONFIDENCE = 0.95
_MODELS_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class CutShare:
    """One model's answers to a task that is answered in words.

    label: `winner` for the winner. answers: how many. cut: how many of them were cut off; None if
    the engine does not say.
    """

    task: str
    label: str
    role: Role
    answers: int
    cut: int | None

    @property
    def share(self) -> float | None:
        """The share that was cut off."""
        return None if self.cut is None else self.cut / self.answers

    def __str__(self) -> str:
        return f"{self.label} {'not known' if self.share is None else f'{self.share:.0%}'}"


@dataclass(frozen=True, kw_only=True)
class CutWarning:
    """A sure difference. label: as in CutShare, of the winner or of a point of a front."""

    label: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class CutAnswers:
    """The shares of answers that were cut off on the test items, task by task.

    found: where the winner, or a point of a front, surely differs from a parent.
    left_out: models whose answers are lost or damaged, in sentences.
    """

    shares: tuple[CutShare, ...] = ()
    found: tuple[CutWarning, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that are answered in words."""
        return tuple(dict.fromkeys(entry.task for entry in self.shares))

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each sure difference."""
        return tuple(each.sentence for each in self.found)

    def warnings_of(self, label: str) -> tuple[str, ...]:
        """Those about one model."""
        return tuple(each.sentence for each in self.found if each.label == label)

    def sentence(self) -> str:
        """The shares in a sentence; empty if no answer is known to be cut off."""
        if not any(entry.cut for entry in self.shares):
            return ""
        by_task = {t: [entry for entry in self.shares if entry.task == t] for t in self.tasks}
        tasks = [
            f"{task}: {', '.join(map(str, entries[:_MODELS_SHOWN]))}"
            + (f" and {len(entries) - _MODELS_SHOWN} more" if entries[_MODELS_SHOWN:] else "")
            for task, entries in by_task.items()
            if any(entry.cut for entry in entries)
        ]
        return f"Answers cut off at the token limit: {'; '.join(tasks)}."

    def lines(self) -> list[str]:
        """The sentence and the warnings, for a terminal."""
        shares = self.sentence()
        return [*([shares] if shares else []), *(f"warning: {each}" for each in self.warnings)]

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values of every share."""
        return [{**asdict(entry), "share": entry.share} for entry in self.shares]


def cut_answers(
    study: Study, *, read: Callable[[CandidateKey], Answers] | None = None
) -> CutAnswers:
    """The shares for an ended search, by the answers that it kept; nothing before the end.

    A difference is sure if its paired interval leaves out 0. The 95% intervals of all parents and
    tasks hold together. Files that are lost or damaged are named and left out. read: instead of
    `study.answers_of`, for those who keep what they read.
    """
    if outcome_of(study) is None:
        return CutAnswers()
    there = models_on(study, "test")
    read = read or study.answers_of
    kept: dict[AnsweringModel, Answers] = {}
    left_out = []
    for model in there.models:
        try:
            kept[model] = read(model.key)
        except RunError as error:
            left_out.append(f"{model.called} is left out: {error}.")
    tasks = dict.fromkeys(
        task
        for answers in kept.values()
        for task, of_task in answers.items()
        if any(answer.generated for answer in of_task.items)
    )
    shares = tuple(
        _share(task, model, answers)
        for task in tasks
        for model, answers in kept.items()
        if task in answers
    )
    return CutAnswers(
        shares=shares,
        found=_warnings(list(tasks), kept, seed=study.job.optimizer.seed),
        left_out=tuple(left_out),
    )


def _share(task: str, model: AnsweringModel, answers: Answers) -> CutShare:
    flags = _flags(answers, task)
    return CutShare(
        task=task,
        label=model.called,
        role=model.role,
        answers=len(answers[task].items),
        cut=None if flags is None else sum(flags.values()),
    )


def _flags(answers: Answers, task: str) -> dict[int, bool] | None:
    """Item -> whether its answer was cut off; None if there is none, or some are not known."""
    if task not in answers:
        return None
    given = sorted(answers[task].items, key=lambda answer: answer.item)
    known = {answer.item: answer.cut for answer in given if answer.cut is not None}
    return known if given and len(known) == len(given) else None


def _warnings(
    tasks: Sequence[str], kept: Mapping[AnsweringModel, Answers], *, seed: int
) -> tuple[CutWarning, ...]:
    won = [model for model in kept if model.role in ("winner", "finalist")]
    parents = [model for model in kept if model.role == "parent"]
    found = []
    for task in tasks:
        pairs = [
            (winner, parent, first, second)
            for winner in won
            for parent in parents
            if winner.key != parent.key
            and (first := _flags(kept[winner], task)) is not None
            and (second := _flags(kept[parent], task)) is not None
            and first.keys() == second.keys()
        ]
        pairs = [pair for pair in pairs if pair[2].keys() == pairs[0][2].keys()]
        if not any(any(flags.values()) for *_, first, second in pairs for flags in (first, second)):
            continue  # None was cut off: nothing differs, and the resampling takes a second.
        differences = share_differences(
            [(list(first.values()), list(second.values())) for _, _, first, second in pairs],
            seed=seed,
            confidence=1.0 - (1.0 - _CONFIDENCE) / len(tasks),
        )
        for (winner, parent, first, second), difference in zip(pairs, differences, strict=True):
            if difference.settled:
                sentence = (
                    f"On {task}, {_percent(first)} of the answers of {_said_of(winner)} are cut "
                    f"off at the token limit, and {_percent(second)} of those of {parent.label} "
                    f"(difference {interval_words(difference.interval)}); their scores may differ "
                    "for this reason alone."
                )
                found.append(CutWarning(label=winner.called, sentence=sentence))
    return tuple(found)


def _percent(flags: Mapping[int, bool]) -> str:
    return f"{sum(flags.values()) / len(flags):.0%}"


def _said_of(model: AnsweringModel) -> str:
    return "the winner" if model.role == "winner" else model.label
