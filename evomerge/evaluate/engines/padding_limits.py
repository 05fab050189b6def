"""Which rows a model reads in one batch as it reads each alone: found by trying them.

A text that is scored is padded on the right, a prompt on the left, its cache grows token by token,
and a row leaves it when its answer ends. Models with a state, with convolutions, or whose attention
looks ahead may be wrong in any of these. What a model cannot do is done another way: rows of one
length, or one at a time as plain transformers does it. The trial is made with random weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from evomerge.errors import SourceError, one_line
from evomerge.evaluate.engines.base import Prompt, Tokens
from evomerge.evaluate.engines.batching import pad
from evomerge.evaluate.engines.decoding import Rows
from evomerge.evaluate.engines.forward_options import ForwardOptions
from evomerge.evaluate.engines.packing_limits import frequency_limits
from evomerge.evaluate.engines.plain import plain_answer, plain_logits
from evomerge.evaluate.engines.random_trial import RandomTexts, agree, succeeds
from evomerge.evaluate.engines.scoring import RunPadded

_TEXTS = (14, 3, 9, 9, 14)
"""Tokens of the texts that are scored; some are shorter than a convolution is wide."""

_ANSWERS = ((7, 4), (2, 2), (7, 1), (11, 3))
"""Tokens of the prompts, and of their answers, which end at different steps."""

_SKIPPED = 2
"""The first places of a batch, whose logits are not asked for."""

Answer = Callable[[Sequence[Tokens], Sequence[Prompt], "Script", Rows], object]
"""Answers prompts in one batch of such rows, token by token as the script says."""


@dataclass(frozen=True, kw_only=True)
class RowLimits:
    """Which rows a model reads in one batch, for scoring and for answers.

    answered: None for a model that transformers itself does not let answer. longest: tokens up to
    which rows may differ in length, where there is such a limit.
    """

    scored: Rows
    answered: Rows | None
    longest: int | None

    def of(self, longest: int, *, generation: bool) -> Rows:
        """Which rows a batch may have; longest: tokens that one of them may get to have."""
        rows = self.answered if generation else self.scored
        assert rows is not None
        mixed = self.longest is None or longest <= self.longest
        return rows if mixed or rows is Rows.SINGLE else Rows.EQUAL


def try_rows(
    model: PreTrainedModel, score: RunPadded, answer: Answer, *, device: torch.device
) -> RowLimits:
    """The freest kind of rows that gives the logits of each row alone; model: random weights."""
    settings = model.config.get_text_config(decoder=True).to_dict()
    return RowLimits(
        scored=_try_scores(model, score, device=device),
        answered=_try_answers(model, answer, device=device),
        longest=min(frequency_limits(settings), default=None),
    )


def check_alone(
    model: PreTrainedModel, score: RunPadded, options: ForwardOptions, *, device: torch.device
) -> None:
    """See that the last logits of a text are what `score` gives, if need be from all of them.

    Raises SourceError for a model that does not read text alone, or not twice alike.
    """
    text = RandomTexts(model).draw(_TEXTS[0])
    try:
        plain = plain_logits(model, torch.from_numpy(text).to(device))[_SKIPPED:]
    except Exception as error:  # each architecture has its own way to say what it misses
        raise _unreadable(model, one_line(f"{type(error).__name__}: {error}")) from error

    def trial() -> bool:
        return agree(score(text[None], keep=len(plain))[0], plain)

    if succeeds(trial):
        return
    options.leave_out("logits_to_keep")
    if not succeeds(trial) and bool(torch.isfinite(plain).all()):
        raise _unreadable(model, "the same text gets other logits the second time")


def _unreadable(model: PreTrainedModel, reason: str) -> SourceError:
    return SourceError(
        f"{type(model).__name__} cannot be scored on text alone ({reason}); `evomerge merge` "
        "merges such models without scoring them"
    )


def _try_scores(model: PreTrainedModel, score: RunPadded, *, device: torch.device) -> Rows:
    draw = RandomTexts(model).draw
    texts = [draw(count) for count in _TEXTS]

    def trial(batch: Sequence[Tokens]) -> bool:
        padded: NDArray[np.int64] = pad(batch, side="right")
        logits = score(padded, keep=padded.shape[1] - _SKIPPED)
        return all(
            agree(
                row[: len(text) - _SKIPPED],
                plain_logits(model, torch.from_numpy(text).to(device))[_SKIPPED:],
            )
            for row, text in zip(logits, batch, strict=True)
        )

    if succeeds(lambda: trial(texts)):
        return Rows.PADDED
    alike = [text for text in texts if len(text) == len(texts[0])]
    return Rows.EQUAL if succeeds(lambda: trial(alike)) else Rows.SINGLE


def _try_answers(model: PreTrainedModel, answer: Answer, *, device: torch.device) -> Rows | None:
    draw = RandomTexts(model).draw
    prompts = [draw(count) for count, _ in _ANSWERS]
    answers = [draw(count) for _, count in _ANSWERS]
    requests = [
        Prompt(tokens=prompt, stop=(), limit_tokens=len(said))
        for prompt, said in zip(prompts, answers, strict=True)
    ]

    def alone(number: int) -> torch.Tensor:
        script = Script([answers[number]])
        request = requests[number]
        context = len(request.tokens) + request.limit_tokens
        plain_answer(model, request, script, context_tokens=context)
        return script.logits(0)

    def trial(rows: Rows) -> bool:
        numbers = [
            number
            for number, prompt in enumerate(prompts)
            if rows is not Rows.EQUAL or len(prompt) == len(prompts[0])
        ]
        script = Script([answers[n] for n in numbers])
        answer([prompts[n] for n in numbers], [requests[n] for n in numbers], script, rows)
        return all(agree(script.logits(row), alone(n)) for row, n in enumerate(numbers))

    for rows in (Rows.PADDED, Rows.PADDED_AT_FIRST, Rows.EQUAL):
        if succeeds(partial(trial, rows)):
            return rows
    return Rows.SINGLE if succeeds(lambda: len(alone(0)) > 0) else None


class Script:
    """Chooses tokens that were given before, and keeps the logits that it was shown."""

    penalised = False
    vocabulary = 0

    def __init__(self, answers: Sequence[Tokens]) -> None:
        self._answers = answers
        self._logits: list[list[torch.Tensor]] = [[] for _ in answers]

    def best(self, logits: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """The next token of each answer that has not ended."""
        going = [n for n, said in enumerate(self._answers) if len(self._logits[n]) < len(said)]
        tokens = [int(self._answers[n][len(self._logits[n])]) for n in going]
        for number, row in zip(going, logits, strict=True):
            self._logits[number].append(row)
        return torch.tensor(tokens, device=logits.device)

    def ended(self, answer: Sequence[int], request: Prompt) -> bool:
        """Whether the answer is as long as it may get."""
        return len(answer) >= request.limit_tokens

    def logits(self, number: int) -> torch.Tensor:
        """(tokens, vocabulary) before each token of an answer."""
        return torch.stack(self._logits[number])
