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
from numpy.typing import NDArray
from transformers import GenerationConfig, PreTrainedTokenizerBase

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
