"""The self-check: an engine held to plain transformers before its scores are trusted.

A few items of each task are scored twice, by the engine as it will run and by `PlainModel`. What
differs by more than rounding would be a wrong score in every candidate: a cache that a new version
of a library does not take, a mask, a position, a state left over from other weights.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from evomerge.errors import SelfCheckError, TaskError
from evomerge.evaluate.candidate import ItemIds, count_items
from evomerge.evaluate.engines.base import (
    Continuation,
    Engine,
    PlainAnswer,
    Prompt,
    Reference,
    Tokens,
)
from evomerge.evaluate.suite import TaskSuite

MOST_ITEMS = 48
"""Items of all tasks together; with two hundred tasks one of each."""

ITEMS_OF_A_TASK = 4

CHECKED_TOKENS = 8
"""Of an answer, each read with the whole text before it."""

CHECKED_ANSWERS = 2
"""Answers of a task; a token of one costs as much as a text of the others."""


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """What rounding may come to, in nats a token.

    one: of any one request. all: root mean square over all of them.
    """

    one: float
    all: float


_ROUNDING: Mapping[torch.dtype, Rounding] = {
    torch.float32: Rounding(one=1e-3, all=3e-4),
    torch.float16: Rounding(one=0.1, all=0.03),
    torch.bfloat16: Rounding(one=0.5, all=0.15),
}
"""Seen in float32 were 6e-7 to 6e-5, where a wrong mask makes more than 0.1. In bfloat16 the
rounding of logits alone comes near a mistake, so there the mean over all is what tells."""


_TIE, _ROUNDINGS = 1e-3, 8
"""Two logits tie that lie no further apart than this, or than so many roundings of the larger."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What plain transformers says of some items, request by request, in the order asked."""

    items: ItemIds
    requests: tuple[Continuation | Prompt, ...]
    owners: tuple[tuple[str, int], ...]  # what each request is of: (task, item)
    said: tuple[float | PlainAnswer, ...]
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """What a check that held came to.

    label: the model. items, requests: how many. largest: difference of any request, in nats a
    token. allowed: what rounding may come to.
    """

    label: str
    items: int
    requests: int
    largest: float
    allowed: float

    def __str__(self) -> str:
        return (
            f"self-check: {self.label} scores as plain transformers does on {self.items} items "
            f"(differences of {self.largest:.1g} nats a token at most)"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def choose_items(suite: TaskSuite) -> ItemIds:
    """Items to check: of each task some search items, from its shortest text to its longest.

    Where its search split is empty, of the next that is not.
    """
    each = max(1, min(ITEMS_OF_A_TASK, MOST_ITEMS // len(suite.tasks)))
    return {task: _spread(suite, task, each) for task in suite.tasks}


def _spread(suite: TaskSuite, task: str, count: int) -> tuple[int, ...]:
    there: tuple[int, ...] = ()
    for split in ("search", "validation", "test"):
        with contextlib.suppress(TaskError):  # a split that is empty
            there = there or suite.items(task, split)
    lengths = {
        item: max(len(request.tokens) for request in suite.requests({task: (item,)}))
        for item in there
    }
    ordered = sorted(there, key=lambda item: (lengths[item], item))
    places = np.linspace(0, len(ordered) - 1, num=min(count, len(ordered)))
    return tuple(sorted({ordered[int(place)] for place in places}))


def expect(reference: Reference, suite: TaskSuite, items: ItemIds) -> Expected:
    """What plain transformers says of these items."""
    owners: list[tuple[str, int]] = []
    requests: list[Continuation | Prompt] = []
    for task, ids in items.items():
        answers = 0
        for item in ids:
            for request in _told_apart(suite.requests({task: (item,)})):
                answers += isinstance(request, Prompt)
                if answers <= CHECKED_ANSWERS or not isinstance(request, Prompt):
                    requests.append(request)
                    owners.append((f"task {task}", item))
    return Expected(
        items=items,
        requests=tuple(requests),
        owners=tuple(owners),
        said=tuple(
            reference.loglikelihood(request)
            if isinstance(request, Continuation)
            else reference.answer(request, limit_tokens=CHECKED_TOKENS)
            for request in requests
        ),
        dtype=reference.dtype,
    )


def _told_apart(requests: Sequence[Continuation | Prompt]) -> Sequence[Continuation | Prompt]:
    """Of one item's requests the shortest and the longest; plain reading shares nothing of them."""
    if len(requests) <= 2:
        return requests
    by_length = sorted(requests, key=lambda request: len(request.tokens))
    return by_length[0], by_length[-1]


def check_engine(engine: Engine, expected: Expected, suite: TaskSuite, *, label: str) -> SelfCheck:
    """Hold an engine, whose weights are those of the reference, to what was expected.

    label: the model, for messages. Raises SelfCheckError, in one line, where it says anything else,
    and Unscorable where the model itself has no score.
    """
    suite.make_ready(engine)
    rounding = _ROUNDING[expected.dtype]
    judge = _Judge(dtype=expected.dtype, rounding=rounding, label=label)
    differences: list[float] = []
    same: list[bool] = []
    found = _found(engine, expected.requests)
    for request, owner, said, plain in zip(
        expected.requests, expected.owners, found, expected.said, strict=True
    ):
        if isinstance(plain, PlainAnswer):
            assert isinstance(said, list)
            same.append(judge.answer(said, plain, owner))
        else:
            assert isinstance(said, float)
            assert isinstance(request, Continuation)
            differences.append(judge.likelihood(said, plain, request.scored, owner))
    judge.spread(differences)
    judge.ties(same)
    return SelfCheck(
        label=label,
        items=count_items(expected.items),
        requests=len(expected.requests),
        largest=max(differences, default=0.0),
        allowed=rounding.one,
    )


def check_reading(found: torch.Tensor, plain: torch.Tensor, tokens: Tokens, *, label: str) -> None:
    """Hold one reading of a text to that of plain transformers.

    found, plain: logits (length, vocabulary). tokens: (length,) the text. Raises SelfCheckError.
    """
    rounding = _ROUNDING[found.dtype]
    judge = _Judge(dtype=found.dtype, rounding=rounding, label=label)
    targets = torch.from_numpy(tokens[1:].copy())[:, None]
    said, wanted = (
        torch.log_softmax(logits[:-1].float().cpu(), dim=-1).gather(1, targets)[:, 0].tolist()
        for logits in (found, plain)
    )
    judge.spread(
        [
            judge.likelihood(one, other, 1, ("calibration text", place))
            for place, (one, other) in enumerate(zip(said, wanted, strict=True))
        ]
    )


def _found(engine: Engine, requests: Sequence[Continuation | Prompt]) -> list[float | list[int]]:
    """All requests in one call of each kind, as candidates are scored."""
    likely = iter(engine.loglikelihood([r for r in requests if isinstance(r, Continuation)]))
    answers = iter(engine.answer([r for r in requests if isinstance(r, Prompt)]))
    return [
        next(likely)[0] if isinstance(request, Continuation) else next(answers)
        for request in requests
    ]


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """Tells rounding from mistakes, for one model."""

    dtype: torch.dtype
    rounding: Rounding
    label: str

    def likelihood(self, said: float, plain: float, scored: int, owner: tuple[str, int]) -> float:
        """The difference in nats a token, less what lm-eval's sum in the model's dtype takes."""
        summed = torch.finfo(self.dtype).eps * abs(plain)
        # A NaN is no number to be near to another, and max() would take it for nothing.
        apart = 0.0 if said == plain else abs(said - plain)
        difference = max(0.0, apart - summed) / math.sqrt(scored)
        if math.isnan(apart) or not difference <= self.rounding.one:
            raise self._differs(owner, f"a log-likelihood of {said:.4f}", f"{plain:.4f}")
        return difference

    def spread(self, differences: Sequence[float]) -> None:
        """Many differences that are each within rounding are no rounding together."""
        spread = math.sqrt(sum(d * d for d in differences) / max(1, len(differences)))
        if spread > self.rounding.all:
            raise self._differs(
                None, f"log-likelihoods that are {spread:.4f} nats a token off", "others"
            )

    def answer(self, said: Sequence[int], plain: PlainAnswer, owner: tuple[str, int]) -> bool:
        """Whether it is the same. It must be up to the first near tie, and end where that ends."""
        for place, (token, wanted) in enumerate(zip(said, plain.tokens, strict=False)):
            if token != wanted:
                row = plain.logits[place]
                gap = float(row[wanted] - row[token])
                if gap <= max(_TIE, _ROUNDINGS * torch.finfo(self.dtype).eps * float(row.max())):
                    return False  # after another token everything is another text
                raise self._differs(
                    owner,
                    f"token {token} in place {place + 1} of the answer",
                    f"token {wanted}, whose logit is {gap:.4f} higher",
                )
        if plain.ended and len(said) > len(plain.tokens):
            raise self._differs(
                owner,
                f"an answer of {len(said)} tokens",
                f"one that ends after {len(plain.tokens)}",
            )

        return True

    def ties(self, same: Sequence[bool]) -> None:
        """Near ties fall the other way now and then, not in most answers."""
        others = len(same) - sum(same)
        if others > 1 and others > len(same) / 2:
            raise self._differs(None, f"{others} of {len(same)} answers", "other ones")

    def _differs(self, owner: tuple[str, int] | None, said: str, plain: str) -> SelfCheckError:
        where = self.label if owner is None else f"{self.label}, {owner[0]}, item {owner[1]}"
        dtype = str(self.dtype).removeprefix("torch.")
        return SelfCheckError(
            f"self-check: {where}: the engine gives {said} where plain transformers gives {plain} "
            f"(in {dtype}, where rounding makes {self.rounding.one:g} a token at most); nothing "
            "was scored: set evaluation.batch_size to 1, or install the versions in constraints.txt"
        )
