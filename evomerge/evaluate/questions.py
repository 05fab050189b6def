"""What an item asks and what a model answered to it, put down for people while it is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task

from evomerge.errors import is_interrupt, is_shortage
from evomerge.evaluate.answers import ItemAnswer, Question, end_of, shorten, whole_characters
from evomerge.evaluate.engines.base import Generated, LogLikelihood

MOST_CHARACTERS = 4000
"""Of an answer; a longer one is kept up to here."""

PROMPT_CHARACTERS = 800
"""Of a prompt, from its end, where the question of the item is."""

_TARGET_CHARACTERS = 400
_CHOICE_CHARACTERS = 200


def question_of(task: Task, document: Mapping[str, Any], instances: Sequence[Instance]) -> Question:
    """What an item asks, from its requests and the task's own code.

    If that code fails here, its part is left empty: no score depends on it.
    """
    choices: Sequence[str] = ()
    if task.OUTPUT_TYPE != "generate_until":
        choices = [str(instance.args[1]) for instance in instances]
    if task.OUTPUT_TYPE == "multiple_choice":
        found = _asked(task, "doc_to_choice", document)
        choices = [str(choice) for choice in found] if isinstance(found, list | tuple) else choices
    return Question(
        prompt=end_of(str(instances[0].args[0]), PROMPT_CHARACTERS),
        target=shorten(
            _target_text(_asked(task, "doc_to_target", document), choices), _TARGET_CHARACTERS
        ),
        choices=tuple(shorten(choice, _CHOICE_CHARACTERS) for choice in choices),
    )


def keep_answer(
    item: int, question: Question, given: Sequence[LogLikelihood | Generated]
) -> ItemAnswer:
    """The answer to an item, from those to its requests."""
    first = next(iter(given), None)
    if isinstance(first, Generated):
        return ItemAnswer(
            item=item,
            question=question,
            text=whole_characters(first.text[:MOST_CHARACTERS]),
            characters=len(first.text),
            tokens=first.tokens,
            cut=first.cut,
        )
    likely = [float(each[0]) for each in given if not isinstance(each, Generated)]
    # After those of the choices, some tasks ask for the same without a context.
    most = len(question.choices) or len(likely)
    return ItemAnswer(item=item, question=question, loglikelihoods=tuple(likely[:most]))


def _asked(task: Task, name: str, document: Mapping[str, Any]) -> Any:
    """What a function of the task gives for an item; None if it fails."""
    try:
        return getattr(task, name)(document)
    except BaseException as error:  # Task files are code and may raise anything.
        if is_interrupt(error) or is_shortage(error):
            raise
        return None


def _target_text(target: object, choices: Sequence[str]) -> str:
    """The wanted answer in words: of choices the choice itself, of several answers all of them."""
    if isinstance(target, list | tuple):
        return " | ".join(_target_text(each, choices) for each in target)
    if isinstance(target, int) and not isinstance(target, bool) and 0 <= target < len(choices):
        return choices[target]
    return "" if target is None else str(target)
