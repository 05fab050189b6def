"""What models answered to the same items, side by side: what a winner gained, and what it lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from evomerge.errors import RunError
from evomerge.evaluate import Answers, CandidateKey, Split, TaskItems
from evomerge.job import JobSpec
from evomerge.search.results.answering import AnsweringModel, chosen_models, models_on
from evomerge.search.results.shown_answers import AnsweredItem, Change, GivenAnswer, ShownAnswers
from evomerge.study import Study

CHANGES: tuple[Change, ...] = ("lost", "gained", "differs", "same")
"""In the order in which items are shown."""

_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class AnswerSheet:
    """The answers of some models to the items of a split.

    models: the first is compared with `against`, None where it is alone. titles: what some of the
    labels stand for, such as "the best parent". items: the lost ones, the gained ones, those that
    differ, the rest; of each, by task and number. asked: those of the task and the number that were
    asked for, of all changes. groups: the tasks of each group in the job. remarks: what is missing,
    in sentences.
    """

    split: Split
    models: tuple[AnsweringModel, ...]
    against: AnsweringModel | None
    items: tuple[AnsweredItem, ...]
    asked: tuple[AnsweredItem, ...]
    remarks: tuple[str, ...]
    titles: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def counts(self) -> Mapping[Change, int]:
        """How many of the items asked for there are of each change."""
        found = Counter(item.change for item in self.asked)
        return {change: found[change] for change in CHANGES}

    def only(
        self,
        changes: Sequence[Change] = CHANGES,
        *,
        task: str | None = None,
        item: int | None = None,
    ) -> AnswerSheet:
        """The items of these changes, of a task, or with a number. Raises RunError if it is wrong.

        task: or a group of tasks. An unknown task or item is an error; that no item changed so is
        not. An item without a change counts as the same.
        """
        known = list(dict.fromkeys(each.task for each in self.asked))
        tasks = known if task is None else (task, *self.groups.get(task, ()))
        if not set(tasks) & set(known):
            raise RunError(
                f"--task {task}: no answers to it are kept on the {self.split} items; there are "
                f"answers to {', '.join([*known, *self._groups_of(known)])}"
            )
        asked = [each for each in self.asked if each.task in tasks]
        if item is not None and item not in {each.item for each in asked}:
            raise RunError(
                f"--item {item}: not among the {self.split} items that answers are kept of; leave "
                "it out to see which are"
            )
        asked = [each for each in asked if item in (None, each.item)]
        kept = [each for each in asked if (each.change or "same") in changes]
        return replace(self, items=tuple(kept), asked=tuple(asked))

    def mixed(self, limit: int) -> AnswerSheet:
        """At most so many items: as many lost as gained ones if there are enough, of every task.

        For a page that shows a few of all. What one limit leaves out, a lower one may show.
        """
        left = {change: self._in_turn(change) for change in CHANGES}
        order = [*left["lost"][: limit // 2], *left["gained"][: (limit + 1) // 2]]
        order += [*left["lost"], *left["gained"], *left["differs"], *left["same"]]
        names = dict.fromkeys((item.task, item.item) for item in order)
        shown = set(list(names)[:limit])
        return replace(
            self, items=tuple(item for item in self.items if (item.task, item.item) in shown)
        )

    def shown(self, offset: int = 0, limit: int | None = None) -> ShownAnswers:
        """Some of the items, all of them without a limit, with what is known of the rest."""
        last = None if limit is None else offset + limit
        return ShownAnswers(
            split=self.split,
            models=self.models,
            against=self.against,
            counts=self.counts,
            asked=len(self.asked),
            items=self.items[offset:last],
            total=len(self.items),
            remarks=self.remarks,
            titles=self.titles,
        )

    def _groups_of(self, known: Sequence[str]) -> list[str]:
        return [name for name, tasks in self.groups.items() if set(tasks) & set(known)]

    def _in_turn(self, change: Change) -> list[AnsweredItem]:
        """The items of a change: the first of each task, then the second of each, and so on."""
        seen: Counter[str] = Counter()
        turns = []
        for item in self.items:
            if item.change == change:
                seen[item.task] += 1
                turns.append((seen[item.task], item))
        return [item for _, item in sorted(turns, key=lambda turn: turn[0])]


def compare_answers(
    study: Study,
    *,
    split: Split | None = None,
    models: Sequence[str] = (),
    read: Callable[[CandidateKey], Answers] | None = None,
) -> AnswerSheet:
    """The answers of models to the items of a split, side by side.

    split: None for the test items of an ended search, or else the search items of its baselines.
    models: labels, names of candidates, or `winner`, `front`, `parents`, `soup`, `base`; none means
    the winner, or a point of the front, the parents and the uniform soup. The first is compared
    with the best parent if that is shown too, or else with the second. read: instead of
    `study.answers_of`, for those who keep what they read. Raises RunError where there are no such
    models, or no answers of them.
    """
    there = models_on(study, split)
    read = read or study.answers_of
    shown = chosen_models(there, models, study)
    kept: dict[CandidateKey, Answers] = {}
    remarks = []
    others = [label for label in there.points if label not in {model.label for model in shown}]
    if others and not models:
        remarks.append(
            f"Other points of the front: {', '.join(others)}; `--models front,parents` shows all, "
            "and a name there shows one."
        )
    for model in shown:
        try:
            answers = read(model.key)
        except RunError as error:
            remarks.append(f"{model.called} is left out: {error}.")
            continue
        if answers:
            kept[model.key] = answers
        else:
            remarks.append(f"{model.called} is left out: no answers of it were kept.")
    if not kept:
        raise RunError(
            f"{study.run_dir}: no answers to {there.split} items can be shown; "
            + (" ".join(remarks) or "none of its models is scored yet").rstrip(".")
        )
    answering = tuple(model for model in shown if model.key in kept)
    against = _against(answering, there.best_parent)
    results = {model.key: study.found_items_of(model.key) for model in answering}
    remarks += [
        f"{model.called} has no scores here: its item results are lost or damaged."
        for model in answering
        if results[model.key] is None
    ]
    items = _side_by_side(study.job, answering, against, kept, results)
    if any(each.question is None for each in items):
        remarks.append("Texts of some answers were not kept, because they take too much room.")
    return AnswerSheet(
        split=there.split,
        models=answering,
        against=against,
        items=items,
        asked=items,
        remarks=tuple(remarks),
        titles=there.titles,
        groups={each.task: each.tasks for each in study.job.scored if each.members},
    )


def _against(models: Sequence[AnsweringModel], best_parent: str | None) -> AnsweringModel | None:
    others = models[1:]
    parent = [model for model in others if model.role == "parent" and model.label == best_parent]
    return next(iter([*parent, *others]), None)


def _side_by_side(
    job: JobSpec,
    models: Sequence[AnsweringModel],
    against: AnsweringModel | None,
    kept: Mapping[CandidateKey, Answers],
    results: Mapping[CandidateKey, Mapping[str, TaskItems] | None],
) -> tuple[AnsweredItem, ...]:
    items = []
    for task in dict.fromkeys(task for answers in kept.values() for task in answers):
        answers = {
            model: {each.item: each for each in kept[model.key][task].items}
            for model in models
            if task in kept[model.key]
        }
        lower = {name for model in answers for name in kept[model.key][task].lower_is_better}
        metric, values = _values_of(job, task, models, results)
        sign = -1.0 if metric in lower else 1.0
        for number in sorted({number for found in answers.values() for number in found}):
            given = tuple(
                GivenAnswer(
                    model=model,
                    answer=found[number],
                    value=values.get(model.key, {}).get(number),
                )
                for model, found in answers.items()
                if number in found
            )
            items.append(
                AnsweredItem(
                    task=task,
                    item=number,
                    metric=metric,
                    change=_change(given, models[0], against, sign),
                    question=next((g.answer.question for g in given if g.answer.question), None),
                    answers=given,
                )
            )
    return tuple(sorted(items, key=lambda item: CHANGES.index(item.change or "same")))


def _values_of(
    job: JobSpec,
    task: str,
    models: Sequence[AnsweringModel],
    results: Mapping[CandidateKey, Mapping[str, TaskItems] | None],
) -> tuple[str | None, dict[CandidateKey, dict[int, float]]]:
    """The metric that an item's answers are judged by, and each model's value on every item.

    That is the metric of the first objective or constraint with the task, itself or as a member of
    a group, or else its first one.
    """
    scored = {
        model.key: found[task]
        for model in models
        if (found := results[model.key]) is not None and task in found
    }
    keys = next((tuple(items.metrics) for items in scored.values()), ())
    named = [objective.metric for objective in job.objectives if task in objective.tasks]
    named += [constraint.metric for constraint in job.constraints if task in constraint.tasks]
    for name in named:
        first_filter = next((key for key in keys if key.startswith(f"{name},")), None)
        metric = name if name in keys else first_filter
        if metric is not None:
            break
    else:
        metric = next(iter(keys), None)
    return metric, {
        key: dict(zip(items.ids, items.metrics[metric], strict=True))
        for key, items in scored.items()
        if metric is not None and metric in items.metrics
    }


def _change(
    given: Sequence[GivenAnswer],
    first: AnsweringModel,
    against: AnsweringModel | None,
    sign: float,
) -> Change | None:
    if against is None:
        return None
    values = {each.model: sign * each.value for each in given if each.value is not None}
    if first in values and against in values:
        gain = values[first] - values[against]
        if abs(gain) > _ROUNDING:
            return "gained" if gain > 0.0 else "lost"
    if values and max(values.values()) - min(values.values()) > _ROUNDING:
        return "differs"
    return "same"
