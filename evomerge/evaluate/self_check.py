"""The self-check: compares an engine with plain transformers before its scores are trusted.

A few items of each task are scored twice: by the engine as it will run, and by `PlainModel`. A
difference that is larger than rounding would make every candidate's score wrong. Its cause may be a
cache that a new version of a library does not take, a mask, a position, or a state left over from
other weights.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from evomerge.errors import SelfCheckError, TaskError, is_interrupt
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
"""Most items of all tasks together; with two hundred tasks, one item of each."""

ITEMS_OF_A_TASK = 4

CHECKED_TOKENS = 8
"""Tokens of an answer that are checked; for each, plain transformers reads the whole text again."""

CHECKED_ANSWERS = 2
"""Answers of a task that are checked; each token of an answer costs as much as a whole
log-likelihood.
"""


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """The largest differences that rounding may make, in nats a token.

    one: of any one request. all: root mean square over all of them.
    """

    one: float
    all: float


_ROUNDING: Mapping[torch.dtype, Rounding] = {
    torch.float32: Rounding(one=1e-3, all=3e-4),
    torch.float16: Rounding(one=0.1, all=0.03),
    torch.bfloat16: Rounding(one=0.5, all=0.15),
}
"""Measured in float32: 6e-7 to 6e-5, while a wrong mask makes more than 0.1. In bfloat16 the
rounding of single logits is almost as large as a mistake, so there the mean over all requests
decides. A merge far from its models may round more than any model that is used: beyond these
limits, the model's own rounding is measured (see `_own_rounding`).
"""

_OWN_ROUNDING = 2.0
"""How many times its own rounding a model's engine may differ from plain transformers: both round,
each in its own order, which makes sqrt(2) of it.
"""


_TIE, _ROUNDINGS = 1e-3, 8
"""Two logits tie if they differ by no more than this, or than so many roundings of the larger one.
"""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What plain transformers answers for some items, request by request."""

    items: ItemIds
    requests: tuple[Continuation | Prompt, ...]
    owners: tuple[tuple[str, int], ...]  # (task, item) of each request
    answers: tuple[float | PlainAnswer, ...]
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """The result of a self-check that passed.

    label: the model. items, requests: how many. largest: the largest difference of a request, in
    nats a token. allowed: the largest difference that rounding may make. own: the root mean square
    by which rounding alone changes this model's log-likelihoods, in nats a token; None where the
    usual limits were enough.
    """

    label: str
    items: int
    requests: int
    largest: float
    allowed: float
    own: float | None = None

    def __str__(self) -> str:
        text = (
            f"self-check: {self.label} scores as plain transformers does on {self.items} items "
            f"(differences of {self.largest:.1g} nats a token at most)"
        )
        if self.own is None:
            return text
        return (
            f"{text}; rounding in 16 bits alone moves its log-likelihoods by {self.own:.1g} nats a "
            "token, so compute.dtype: float32 gives truer scores"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def choose_items(suite: TaskSuite) -> ItemIds:
    """Items to check: some search items of each task, from its shortest text to its longest.

    If its search split is empty, they come from validation, or else from test.
    """
    each = max(1, min(ITEMS_OF_A_TASK, MOST_ITEMS // len(suite.tasks)))
    return {task: _spread(suite, task, each) for task in suite.tasks}


def _spread(suite: TaskSuite, task: str, count: int) -> tuple[int, ...]:
    available: tuple[int, ...] = ()
    for split in ("search", "validation", "test"):
        with contextlib.suppress(TaskError):  # a split that is empty
            available = available or suite.items(task, split)
    lengths = {
        item: max(len(request.tokens) for request in suite.requests({task: (item,)}))
        for item in available
    }
    ordered = sorted(available, key=lambda item: (lengths[item], item))
    places = np.linspace(0, len(ordered) - 1, num=min(count, len(ordered)))
    return tuple(sorted({ordered[int(place)] for place in places}))


def expect(reference: Reference, suite: TaskSuite, items: ItemIds) -> Expected:
    """The answers of plain transformers for these items."""
    owners: list[tuple[str, int]] = []
    requests: list[Continuation | Prompt] = []
    for task, ids in items.items():
        answers = 0
        for item in ids:
            for request in _shortest_and_longest(suite.requests({task: (item,)})):
                answers += isinstance(request, Prompt)
                if answers <= CHECKED_ANSWERS or not isinstance(request, Prompt):
                    requests.append(request)
                    owners.append((f"task {task}", item))
    return Expected(
        items=items,
        requests=tuple(requests),
        owners=tuple(owners),
        answers=tuple(
            reference.loglikelihood(request)
            if isinstance(request, Continuation)
            else reference.answer(request, limit_tokens=CHECKED_TOKENS)
            for request in requests
        ),
        dtype=reference.dtype,
    )


def _shortest_and_longest(
    requests: Sequence[Continuation | Prompt],
) -> Sequence[Continuation | Prompt]:
    """The shortest and the longest request of an item; plain transformers needs a pass for each."""
    if len(requests) <= 2:
        return requests
    by_length = sorted(requests, key=lambda request: len(request.tokens))
    return by_length[0], by_length[-1]


def check_engine(
    engine: Engine,
    expected: Expected,
    suite: TaskSuite,
    *,
    label: str,
    exact: Callable[[], Reference] | None = None,
) -> SelfCheck:
    """Compare an engine's answers with the expected ones; both have the same weights.

    label: the model, for messages. exact: opens plain transformers with these weights in float32;
    called only where a model in 16 bits differs by more than rounding usually makes. Raises
    SelfCheckError, in one line, if they differ, and Unscorable if the model itself has no score.
    """
    suite.make_ready(engine)
    rounding = _ROUNDING[expected.dtype]
    answers = _found(engine, expected.requests)
    try:
        return _compare(answers, expected, rounding, label=label)
    except SelfCheckError:
        if exact is None or expected.dtype == torch.float32:
            raise
        try:
            own = _own_rounding(expected, exact())
        except Exception as error:  # no memory for it, or a model that float32 does not suit
            if is_interrupt(error):
                raise
            own = None
        if own is None:
            raise
        wider = Rounding(
            one=max(rounding.one, _OWN_ROUNDING * own.one),
            all=max(rounding.all, _OWN_ROUNDING * own.all),
        )
        found = _compare(answers, expected, wider, label=label)
        return replace(found, own=own.all)


def _own_rounding(expected: Expected, exact: Reference) -> Rounding | None:
    """How far rounding alone moves plain transformers' log-likelihoods from those in float32.

    None where there are none, or one is not finite.
    """
    differences = [
        abs(answer - exact.loglikelihood(request)) / math.sqrt(request.scored)
        for request, answer in zip(expected.requests, expected.answers, strict=True)
        if isinstance(request, Continuation) and isinstance(answer, float)
    ]
    if not differences or not all(map(math.isfinite, differences)):
        return None
    return Rounding(one=max(differences), all=_root_mean_square(differences))


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / max(1, len(values)))


def _compare(
    answers: Sequence[float | list[int]], expected: Expected, rounding: Rounding, *, label: str
) -> SelfCheck:
    """Compare answers with the expected ones. Raises SelfCheckError."""
    judge = _Judge(dtype=expected.dtype, rounding=rounding, label=label)
    differences: list[float] = []
    same: list[bool] = []
    for request, owner, answer, plain in zip(
        expected.requests, expected.owners, answers, expected.answers, strict=True
    ):
        if isinstance(plain, PlainAnswer):
            assert isinstance(answer, list)
            same.append(judge.answer(answer, plain, owner))
        else:
            assert isinstance(answer, float)
            assert isinstance(request, Continuation)
            differences.append(judge.likelihood(answer, plain, request.scored, owner))
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
    """Compare an engine's logits of one text with those of plain transformers.

    found, plain: logits (length, vocabulary). tokens: (length,) the text. Raises SelfCheckError.
    """
    rounding = _ROUNDING[found.dtype]
    judge = _Judge(dtype=found.dtype, rounding=rounding, label=label)
    targets = torch.from_numpy(tokens[1:].copy())[:, None]
    found_values, plain_values = (
        torch.log_softmax(logits[:-1].float().cpu(), dim=-1).gather(1, targets)[:, 0].tolist()
        for logits in (found, plain)
    )
    judge.spread(
        [
            judge.likelihood(value, plain_value, 1, ("calibration text", position))
            for position, (value, plain_value) in enumerate(
                zip(found_values, plain_values, strict=True)
            )
        ]
    )


def _found(engine: Engine, requests: Sequence[Continuation | Prompt]) -> list[float | list[int]]:
    """The engine's answers, with one call for each kind of request, as candidates are scored."""
    likelihoods = iter(engine.loglikelihood([r for r in requests if isinstance(r, Continuation)]))
    answers = iter(engine.answer([r for r in requests if isinstance(r, Prompt)]))
    return [
        next(likelihoods)[0] if isinstance(request, Continuation) else next(answers)
        for request in requests
    ]


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """Decides for one model which differences are rounding and which are mistakes."""

    dtype: torch.dtype
    rounding: Rounding
    label: str

    def likelihood(self, found: float, plain: float, scored: int, owner: tuple[str, int]) -> float:
        """The difference in nats a token, less what lm-eval's sum in the model's dtype rounds."""
        summed = torch.finfo(self.dtype).eps * abs(plain)
        # max() would take a NaN for 0, so it is tested by itself.
        distance = 0.0 if found == plain else abs(found - plain)
        difference = max(0.0, distance - summed) / math.sqrt(scored)
        if math.isnan(distance) or not difference <= self.rounding.one:
            raise self._differs(
                owner,
                f"the engine gives a log-likelihood of {found:.4f} where plain transformers gives "
                f"{plain:.4f}",
            )
        return difference

    def spread(self, differences: Sequence[float]) -> None:
        """Raise if the differences together are too large, even if each is within rounding."""
        spread = _root_mean_square(differences)
        if spread > self.rounding.all:
            raise self._differs(
                None,
                f"the engine's log-likelihoods are {spread:.4f} nats a token off those of plain "
                "transformers",
            )

    def answer(self, found: Sequence[int], plain: PlainAnswer, owner: tuple[str, int]) -> bool:
        """Whether the answers are the same.

        They must be so up to the first near tie, and end in the same place if there is none.
        """
        for position, (token, wanted) in enumerate(zip(found, plain.tokens, strict=False)):
            if token != wanted:
                row = plain.logits[position]
                gap = float(row[wanted] - row[token])
                if gap <= max(_TIE, _ROUNDINGS * torch.finfo(self.dtype).eps * float(row.max())):
                    return False  # after a different token the texts have nothing in common
                raise self._differs(
                    owner,
                    f"the engine gives token {token} as token {position + 1} of the answer where "
                    f"plain transformers gives token {wanted} with a logit {gap:.4f} higher",
                )
        if plain.ended and len(found) > len(plain.tokens):
            raise self._differs(
                owner,
                f"the engine gives an answer of {len(found)} tokens where plain transformers gives "
                f"an answer of {len(plain.tokens)}",
            )

        return True

    def ties(self, same: Sequence[bool]) -> None:
        """Raise if most answers differ: a near tie may change a few of them, not most."""
        different = len(same) - sum(same)
        if different > 1 and different > len(same) / 2:
            raise self._differs(
                None,
                f"{different} of the engine's {len(same)} answers differ from those of plain "
                "transformers",
            )

    def _differs(self, owner: tuple[str, int] | None, difference: str) -> SelfCheckError:
        where = self.label if owner is None else f"{self.label}, {owner[0]}, item {owner[1]}"
        dtype = str(self.dtype).removeprefix("torch.")
        most = (
            f"{self.rounding.all:g} a token on the whole"
            if owner is None
            else f"{self.rounding.one:g} a token at most"
        )
        # A merge far from its models may round more in 16 bits than any model that is used.
        exact = "" if self.dtype == torch.float32 else "compute.dtype to float32, or "
        return SelfCheckError(
            f"self-check: {where}: {difference} (in {dtype}, where rounding makes {most}); nothing "
            f"was scored: set {exact}evaluation.batch_size to 1, or install the versions in "
            "constraints.txt"
        )
