"""The interface between tasks and live models: requests, answers, and what every engine can do.

Requests are token ids, encoded once when the tasks are built.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

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
    limit_tokens: the longest answer. room_tokens: the room that is kept for the answer when the
    prompt is cut to the context; None for limit_tokens.
    """

    tokens: Tokens
    stop: tuple[str, ...]
    limit_tokens: int
    room_tokens: int | None = None

    @property
    def reserved_tokens(self) -> int:
        """The room for the answer when the prompt is cut to the context."""
        return self.limit_tokens if self.room_tokens is None else self.room_tokens

    def up_to(self, limit_tokens: int | None) -> Prompt:
        """The same with another longest answer; None changes nothing.

        A model's own `max_new_tokens` replaces a task's limit, as in stock lm-eval. The prompt is
        still cut by the task's limit, also as there.
        """
        if limit_tokens is None or limit_tokens == self.limit_tokens:
            return self
        return replace(self, limit_tokens=limit_tokens, room_tokens=self.reserved_tokens)


LogLikelihood = tuple[float, bool]
"""Sum of the log-probabilities of a continuation, and whether greedy decoding would give it."""


class Unscorable(Exception):
    """This candidate has no score; the text is the reason, a sentence for the user.

    Used inside the package only: the caller that evaluates a candidate turns it into a `Failed`.
    """


class NonFiniteLogits(Unscorable):
    """The candidate's logits hold NaN or infinity; scores made of them would look real."""

    def __init__(self) -> None:
        super().__init__("logits are not finite")


@dataclass(frozen=True, kw_only=True, eq=False)
class PlainAnswer:
    """The beginning of a greedy answer.

    tokens: the chosen tokens, with the end token. logits: (tokens, vocabulary) float32 on the CPU:
    each token was chosen from its row, after a repetition penalty. ended: whether by an end token.
    """

    tokens: tuple[int, ...]
    logits: torch.Tensor
    ended: bool


class Reference(Protocol):
    """What an engine is compared with: it reads one text at a time, by a forward pass alone.

    dtype: of its arithmetic.
    """

    dtype: torch.dtype

    def loglikelihood(self, request: Continuation) -> float:
        """Sum of the log-probabilities of the continuation, in nats."""

    def answer(self, request: Prompt, *, limit_tokens: int) -> PlainAnswer:
        """At most `limit_tokens` tokens of the greedy answer."""

    def in_float32(self) -> Reference:
        """The same weights, with arithmetic in float32."""


class Engine(Protocol):
    """A live model of one architecture whose weights change from candidate to candidate.

    forward_s: wall seconds spent inside the model's forward passes since the engine was built.
    hops, shared_hops: of routes, see Cost; 0 for any other model.
    """

    hops: int
    shared_hops: int

    @property
    def forward_s(self) -> float:
        """See above; on a GPU, to read it waits for the last pass."""

    def destination(self, name: str) -> torch.Tensor | None:
        """Memory of the live model into which a checkpoint's tensor may be written directly.

        `load` must then be given that very memory for the tensor. None if the engine can take it by
        `load` only.
        """

    def load(self, stream: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take new weights in place: every tensor of the checkpoint, by its name there.

        Raises SourceError where a name is unknown or missing, or a shape differs.
        """

    def use(
        self, *, tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig, where: str
    ) -> None:
        """Answer from now on with this tokenizer and these generation settings.

        where: the model that the settings are from, for messages. `generate` raises SourceError for
        settings other than greedy decoding. A repeated call costs nothing.
        """

    def plain(self) -> Reference | None:
        """The live model as a reference to check the engine by; None if there is none."""

    def prepare(self, *, longest_tokens: int, longest_scored: int) -> None:
        """Choose batch sizes for requests up to this long; a repeated call costs nothing."""

    def loglikelihood(self, requests: Sequence[Continuation]) -> list[LogLikelihood]:
        """One answer a request, in order. Raises NonFiniteLogits, TaskError if one is too long."""

    def answer(self, requests: Sequence[Prompt]) -> list[list[int]]:
        """The tokens of each greedy answer, with the one that ended it; see `generate`."""

    def generate(self, requests: Sequence[Prompt]) -> list[str]:
        """One text a request, in order. Raises NonFiniteLogits, TaskError if one is too long."""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """A greedy answer: its text, and how it ended.

    tokens: how many it has, with the one that ended it. cut: whether it was cut off at the token
    limit, because nothing had ended it. None where the engine does not say.
    """

    text: str
    tokens: int | None = None
    cut: bool | None = None


@runtime_checkable
class CountingEngine(Protocol):
    """An engine that also says how its answers ended; this is optional, and only for people."""

    def generate_counted(self, requests: Sequence[Prompt]) -> list[Generated]:
        """One answer a request, in order; the texts are those of `Engine.generate`."""


# Cuts requests to a model's context: texts are cut from the left, as lm-eval cuts them.


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
    """The end of the prompt, cut so that the answer has room, (n,).

    Raises TaskError if nothing of the prompt is left.
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
"""What a tokenizer shows for bytes of an incomplete character."""


class Stopping:
    """Stop texts and end tokens that end a generated answer.

    The tokenizer's own end token is always among them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, end_tokens: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        own = tokenizer.eos_token_id
        self.end_tokens = frozenset(end_tokens) | (set() if own is None else {own})
        self._may_complete: dict[tuple[int, tuple[str, ...]], bool] = {}

    def ended(self, tokens: Sequence[int], stop: tuple[str, ...]) -> bool:
        """Whether an answer of these tokens (at least one) ends with the last one."""
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

    def counted(self, tokens: Sequence[int], stop: tuple[str, ...]) -> Generated:
        """The answer with its number of tokens, and whether nothing ended it."""
        return Generated(
            text=self.text(tokens, stop),
            tokens=len(tokens),
            cut=bool(tokens) and not self.ended(tokens, stop),
        )

    def _completes_some(self, token: int, stop: tuple[str, ...]) -> bool:
        """Whether the token's text holds the last character of a stop text.

        The token is decoded alone and after itself: some tokenizers drop a leading space at the
        beginning of a text.
        """
        piece = self._tokenizer.decode([token], skip_special_tokens=False)
        piece += self._tokenizer.decode([token, token], skip_special_tokens=False)
        return _UNDECODED in piece or any(phrase[-1] in piece for phrase in stop if phrase)
