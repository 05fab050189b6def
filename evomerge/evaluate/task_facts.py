"""What a person wants to see of a task before it is scored: its size in tokens, and its texts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from evomerge.evaluate.engines.base import Continuation, Prompt


@dataclass(frozen=True, kw_only=True)
class ShownItem:
    """The texts of one item, exactly as the tokenizer gets them.

    item: its position in the task. prompts: one, or one for each choice where the choices are in
    the prompt. answers: the texts whose likelihood is asked for; empty if an answer is generated.
    target: the right answer.
    """

    item: int
    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    target: str


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Numbers of tokens: of the middle text, and of the longest."""

    median: int
    longest: int


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What is asked of a model in a task.

    output_type: as in lm-eval. examples: few-shot examples in a prompt. prompt_tokens: of the texts
    before the answers. answer_tokens: of the answers whose likelihood is asked for; None if answers
    are generated. limit_tokens: the longest generated answer; None if none is generated.
    """

    output_type: str
    examples: int
    prompt_tokens: Spread
    answer_tokens: Spread | None
    limit_tokens: int | None


def facts_of(
    requests: Sequence[Continuation | Prompt], *, output_type: str, examples: int
) -> TaskFacts:
    """The facts on a task with these requests, at least one."""
    given = [r for r in requests if isinstance(r, Continuation)]
    asked = [r for r in requests if isinstance(r, Prompt)]
    return TaskFacts(
        output_type=output_type,
        examples=examples,
        prompt_tokens=_spread(
            [*(len(r.tokens) - r.scored for r in given), *(len(r.tokens) for r in asked)]
        ),
        answer_tokens=_spread([r.scored for r in given]) if given else None,
        limit_tokens=max((r.limit_tokens for r in asked), default=None),
    )


def _spread(tokens: Sequence[int]) -> Spread:
    return Spread(median=round(statistics.median(tokens)), longest=max(tokens))
