"""Which token comes next in a greedy answer, and whether the answer has ended with it.

Equal to transformers' `generate` with sampling off: a repetition penalty of the checkpoint counts
the prompt and the answer. It does not know how prompts are batched or cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from transformers import GenerationConfig

from evomerge.evaluate.engines.base import NonFiniteLogits, Prompt
from evomerge.evaluate.engines.stopping import Stopping


class Chooses(Protocol):
    """What decoding asks of whoever chooses tokens, see `Choosing`."""

    @property
    def penalised(self) -> bool:
        """Whether the choice depends on the tokens that were seen."""

    @property
    def vocabulary(self) -> int:
        """How many tokens there are to choose from."""

    def best(self, logits: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """The next token of each row."""

    def ended(self, answer: Sequence[int], request: Prompt) -> bool:
        """Whether an answer is complete with its last token."""


class Choosing:
    """Greedy choices of one model; `stopping` says when an answer ends.

    penalised: whether a repetition penalty asks for the tokens that were seen. limit_tokens: the
    checkpoint's own longest answer, see Prompt.up_to.
    """

    limit_tokens: int | None

    def __init__(
        self, *, generation_config: GenerationConfig, stopping: Stopping, vocabulary: int
    ) -> None:
        self.stopping = stopping
        self.vocabulary = vocabulary
        penalty = generation_config.repetition_penalty
        self.limit_tokens = generation_config.max_new_tokens
        self._penalty = 1.0 if penalty is None else float(penalty)
        self.penalised = self._penalty != 1.0

    def best(self, logits: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """The next token of each row, (rows,).

        logits: (rows, vocabulary). seen: (rows, vocabulary), which tokens each row holds; None
        without a penalty. Raises NonFiniteLogits.
        """
        logits = logits.float()
        if seen is not None:
            penalised = torch.where(logits < 0, logits * self._penalty, logits / self._penalty)
            logits = torch.where(seen, penalised, logits)
        best, tokens = logits.max(dim=-1)
        # A NaN anywhere in a row is its maximum.
        if not bool(torch.isfinite(best).all()):
            raise NonFiniteLogits
        return tokens

    def ended(self, answer: Sequence[int], request: Prompt) -> bool:
        """Whether an answer of at least one token is complete with its last one."""
        return len(answer) >= request.limit_tokens or self.stopping.ended(answer, request.stop)
