"""The seam between tasks and live models: requests, answers, and what every engine can do.

Requests are token ids, encoded once when the tasks are built. Nothing here knows lm-eval or a
device.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from lm_eval.models.utils import postprocess_generated_text
from numpy.typing import NDArray
from transformers import GenerationConfig, PreTrainedTokenizerBase

from evomerge.errors import TaskError

Tokens = NDArray[np.int64]
"""Token ids, shape (n,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Continuation:
    """How likely is the end of this text, given its beginning?

    tokens: (n,) context and continuation. scored: how many at the end are the continuation, >= 1.
    """

    tokens: Tokens
    scored: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """What follows this text, greedily?

    tokens: (n,) the prompt. stop: texts that end the answer; it is cut before the first of them.
    limit_tokens: the longest answer. room_tokens: for how long an answer the prompt is cut, None
    for the longest.
    """

    tokens: Tokens
    stop: tuple[str, ...]
    limit_tokens: int
    room_tokens: int | None = None

    @property
    def reserved_tokens(self) -> int:
        """The answer that the prompt is cut for."""
        return self.limit_tokens if self.room_tokens is None else self.room_tokens

    def up_to(self, limit_tokens: int | None) -> Prompt:
        """The same with another longest answer; None changes nothing.

        A model's own `max_new_tokens` goes before a task's limit, as in stock lm-eval, which cuts
        prompts by the task's all the same.
        """
        if limit_tokens is None or limit_tokens == self.limit_tokens:
            return self
        return replace(self, limit_tokens=limit_tokens, room_tokens=self.reserved_tokens)


LogLikelihood = tuple[float, bool]
"""Sum of the log-probabilities of a continuation, and whether greedy decoding would give it."""


class Unscorable(Exception):
    """This candidate has no score; the text is the reason, a sentence for the user.

    A signal inside the package: whoever evaluates a candidate turns it into a `Failed` outcome.
    """


class NonFiniteLogits(Unscorable):
    """The candidate's logits hold NaN or infinity; scores made of them would look real."""

    def __init__(self) -> None:
        super().__init__("logits are not finite")


@dataclass(frozen=True, kw_only=True, eq=False)
class PlainAnswer:
    """The beginning of a greedy answer.

    tokens: those chosen, an end token included. logits: (tokens, vocabulary) float32 on the CPU,
    what each was chosen from, a repetition penalty applied. ended: by an end token.
    """

    tokens: tuple[int, ...]
    logits: torch.Tensor
    ended: bool


class Reference(Protocol):
    """What an engine is held to: one text at a time, by a forward pass alone.

    dtype: of its arithmetic.
    """

    dtype: torch.dtype

    def loglikelihood(self, request: Continuation) -> float:
        """Sum of the log-probabilities of the continuation, in nats."""

    def answer(self, request: Prompt, *, limit_tokens: int) -> PlainAnswer:
        """At most so many tokens of the greedy answer."""


class Engine(Protocol):
    """A live model of one architecture whose weights change from candidate to candidate.

    forward_s: wall seconds spent inside the model's forward passes since the engine was built.
    hops, shared_hops: of routes, see Cost; 0 for any other model.
    """

    forward_s: float
    hops: int
    shared_hops: int

    def destination(self, name: str) -> torch.Tensor | None:
        """Memory of the live model that a checkpoint's tensor may be written to at once.

        Such a tensor must then be given to `load` as that very memory. None where the engine can
        only take it by `load`.
        """

    def load(self, stream: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take new weights in place: every tensor of the checkpoint, by its name there.

        Raises SourceError where a name is unknown or missing, or a shape differs.
        """

    def use(
        self, *, tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig, where: str
    ) -> None:
        """Answer from now on as a model with this tokenizer and these generation settings does.

        where: whose settings they are, for messages; SourceError is raised by `generate` for
        settings other than greedy decoding. What is used already costs nothing.
        """

    def plain(self) -> Reference | None:
        """The live model read the plain way, to check the engine by; None where it cannot be."""

    def prepare(self, *, longest_tokens: int, longest_scored: int) -> None:
        """Choose batch sizes for requests up to this long; a repeated call costs nothing."""

    def loglikelihood(self, requests: Sequence[Continuation]) -> list[LogLikelihood]:
        """One answer a request, in order. Raises NonFiniteLogits, TaskError where too long."""

    def answer(self, requests: Sequence[Prompt]) -> list[list[int]]:
        """The tokens of each greedy answer, the one that ended it included; see `generate`."""

    def generate(self, requests: Sequence[Prompt]) -> list[str]:
        """One text a request, in order. Raises NonFiniteLogits, TaskError where too long."""


# What of a request fits a model's context: texts are cut from the left, as lm-eval cuts them.
#
# Nothing here knows a model beyond the length of its context.


def read_of(request: Continuation, *, context_tokens: int) -> Tokens:
    """What the model reads to score the continuation: all but the last token, (n,).

    Raises TaskError for a continuation longer than the context.
    """
    if request.scored > context_tokens:
        raise TaskError(
            f"a continuation of {request.scored} tokens is longer than the model's context of "
            f"{context_tokens}; leave the item out of the task"
        )
    return request.tokens[-(context_tokens + 1) : -1]


def prompt_of(request: Prompt, *, context_tokens: int) -> Tokens:
    """The end of the prompt that leaves room for an answer, (n,).

    Raises TaskError where that is none.
    """
    room = context_tokens - request.reserved_tokens
    if room < 1:
        raise TaskError(
            f"max_gen_toks: {request.reserved_tokens} leaves no room for a prompt in the model's "
            f"context of {context_tokens} tokens; set it lower in the task"
        )
    return request.tokens[-room:]


# When a generated answer ends, and what its text is.
#
# Decoding a text after every token would cost more than a small model's forward pass, so a text
# is decoded only after a token that could complete one of the stop texts.


_UNDECODED = "\ufffd"
"""What a tokenizer shows for bytes that are no whole character yet."""


class Stopping:
    """Stop texts and end tokens of one tokenizer, whose own end token is one of these."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, end_tokens: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        own = tokenizer.eos_token_id
        self.end_tokens = frozenset(end_tokens) | (set() if own is None else {own})
        self._may_complete: dict[tuple[int, tuple[str, ...]], bool] = {}

    def ended(self, tokens: Sequence[int], stop: tuple[str, ...]) -> bool:
        """Whether an answer of these tokens (at least one) is complete with its last one."""
        last = tokens[-1]
        if last in self.end_tokens:
            return True
        key = (last, stop)
        may_complete = self._may_complete.get(key)
        if may_complete is None:
            may_complete = self._may_complete[key] = self._completes_some(last, stop)
        if not may_complete:
            return False
        text = self._tokenizer.decode(tokens, skip_special_tokens=False)
        return any(phrase in text for phrase in stop if phrase)

    def text(self, tokens: Sequence[int], stop: tuple[str, ...]) -> str:
        """The answer: without special tokens, cut at the stop texts as lm-eval cuts it."""
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return str(postprocess_generated_text(text, list(stop), None))

    def _completes_some(self, token: int, stop: tuple[str, ...]) -> bool:
        """Whether the token's text holds the last character of a stop text.

        The token is decoded alone and after itself: some tokenizers drop a leading space at the
        beginning of a text.
        """
        piece = self._tokenizer.decode([token], skip_special_tokens=False)
        piece += self._tokenizer.decode([token, token], skip_special_tokens=False)
        return _UNDECODED in piece or any(phrase[-1] in piece for phrase in stop if phrase)
