"""What a model has to do for its items: texts to read, answers to say, merges to make.

It comes from the encoded requests of the tasks; no model is run. Nobody knows before a search how
long the answers get that models say, so the right answers stand for them.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluate import Continuation, ItemIds, Prompt, TaskSuite
from evomerge.workers import PreparedJob

_TARGETS = 16
"""Items of a task whose right answers are measured."""

_MOST_TEXTS = 4096
"""Texts of a part that are compared with each other; more are taken to share as much."""

HIGH = 2.0
"""At the high end of a range, answers are so many times as long as the right ones."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one model does for the items of one part.

    items: how many. read_tokens: of all texts, shared beginnings once. scored_tokens: those whose
    likelihood is asked for. answers: that are generated. answer_tokens: of them all, as long as
    the right answers. most_answer_tokens: if every one ran to its limit. longest_answer: steps of
    the longest expected answer. context_tokens: of a text in the middle, with its answer.
    longest_tokens: of the longest text that is answered, with its limit.
    """

    items: int
    read_tokens: int
    scored_tokens: int
    answers: int
    answer_tokens: int
    most_answer_tokens: int
    longest_answer: int
    context_tokens: int
    longest_tokens: int

    @property
    def cut(self) -> float:
        """How many times as many tokens the answers have if each runs to its limit; 1 for none."""
        return self.most_answer_tokens / self.answer_tokens if self.answer_tokens else 1.0


def expected_answers(preparation: PreparedJob) -> dict[str, int]:
    """Task -> tokens of a right answer with the token that ends it, for tasks that generate."""
    suite, found = preparation.suite, {}
    for task in preparation.job.all_tasks:
        limit = suite.facts(task).limit_tokens
        if limit is None:
            continue
        ids = spread(suite.scored(task), _TARGETS)
        texts = [item.target for item in suite.show(task, ids)]
        counts = [len(suite.tokenizer.encode(text, add_special_tokens=False)) for text in texts]
        found[task] = max(1, min(limit, 1 + round(statistics.median(counts))))
    return found


def work_of(suite: TaskSuite, items: ItemIds, answers: Mapping[str, int]) -> Work:
    """The work for these items; answers: as `expected_answers` gives them."""
    given: list[Continuation] = []
    asked: list[tuple[Prompt, int]] = []
    for task, ids in items.items():
        for request in suite.requests({task: ids}):
            if isinstance(request, Continuation):
                given.append(request)
            else:
                asked.append((request, min(request.limit_tokens, answers[task])))
    texts = [request.tokens[:-1] for request in given]
    prompts = [request.tokens for request, _ in asked]
    said = [tokens for _, tokens in asked]
    lengths = [*map(len, texts), *map(len, prompts)]
    return Work(
        items=sum(map(len, items.values())),
        read_tokens=_distinct(texts) + _distinct(prompts),
        scored_tokens=sum(request.scored for request in given),
        answers=len(asked),
        answer_tokens=sum(said),
        most_answer_tokens=sum(request.limit_tokens for request, _ in asked),
        longest_answer=max(said, default=0),
        context_tokens=round(statistics.median(lengths) + statistics.median(said or [0])),
        longest_tokens=max((len(r.tokens) + r.limit_tokens for r, _ in asked), default=0),
    )


def part_of(
    preparation: PreparedJob, items: Mapping[str, int], *, parts: int = 1
) -> dict[str, tuple[int, ...]]:
    """Items of one of so many parts: as many of each task, from all places of it."""
    counts = {task: max(1, round(count / parts)) for task, count in items.items() if count}
    return {task: spread(preparation.suite.scored(task), count) for task, count in counts.items()}


def spread(ids: Sequence[int], count: int) -> tuple[int, ...]:
    """So many items, evenly from all parts of a task; all where it has fewer."""
    count = min(count, len(ids))
    return tuple(ids[place * len(ids) // count] for place in range(count))


def _distinct(texts: Sequence[NDArray[np.int64]]) -> int:
    """Tokens of the tree of these texts, in which a shared beginning is there once."""
    taken = list(texts[:: max(1, len(texts) // _MOST_TEXTS)])
    if not taken:
        return 0
    # Big-endian bytes sort as the tokens do.
    rows = sorted({text.astype(">u4").tobytes() for text in taken})
    count, before = 0, np.empty(0, dtype=">u4")
    for row in rows:
        text = np.frombuffer(row, dtype=">u4")
        both = min(len(text), len(before))
        differ = np.flatnonzero(text[:both] != before[:both])
        count += len(text) - (int(differ[0]) if len(differ) else both)
        before = text
    return round(count * len(texts) / len(taken))
