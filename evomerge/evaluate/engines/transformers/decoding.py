"""Greedy decoding of left-padded batches with the model's own kind of cache.

It is for models with a past that a mask cannot take apart, such as state spaces and sliding
windows. Trials find what is exact for a model, see `limits`. Answers are those of transformers'
`generate` without sampling, run prompt by prompt. A row leaves its batch when its answer ends.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedConfig

from evomerge.devices import upload
from evomerge.evaluate.engines.base import NonFiniteLogits, Prompt, Stopping, Tokens
from evomerge.evaluate.engines.transformers.batching import pad

# Which token comes next in a greedy answer, and whether the answer has ended with it.
#
# Equal to transformers' `generate` without sampling: a repetition penalty of the checkpoint is for
# the tokens of the prompt and of the answer.


class Chooses(Protocol):
    """What decoding needs to choose tokens, see `GreedyChoice`."""

    @property
    def penalised(self) -> bool:
        """Whether the choice depends on the tokens that were seen."""

    @property
    def vocabulary(self) -> int:
        """How many tokens there are to choose from."""

    def best(self, logits: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """The next token of each row; see `read_tokens`."""

    def ended(self, answer: Sequence[int], request: Prompt) -> bool:
        """Whether an answer is complete with its last token."""


class GreedyChoice:
    """Greedy choices of one model; `stopping` says when an answer ends.

    penalised: whether there is a repetition penalty, which needs the tokens that were seen.
    limit_tokens: the checkpoint's own longest answer, see Prompt.up_to.
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
        """The next token of each row, (rows,); -1 where its logits are not finite.

        logits: (rows, vocabulary). seen: (rows, vocabulary), which tokens each row holds; None
        without a penalty.
        """
        logits = logits.float()
        if seen is not None:
            penalised = torch.where(logits < 0, logits * self._penalty, logits / self._penalty)
            logits = torch.where(seen, penalised, logits)
        best, tokens = logits.max(dim=-1)
        # A NaN anywhere in a row is its maximum.
        return torch.where(torch.isfinite(best), tokens, -1)

    def ended(self, answer: Sequence[int], request: Prompt) -> bool:
        """Whether an answer of at least one token is complete with its last one."""
        return len(answer) >= request.limit_tokens or self.stopping.ended(answer, request.stop)


def read_tokens(tokens: torch.Tensor) -> list[int]:
    """The tokens that were chosen, in one copy from the device. Raises NonFiniteLogits."""
    read: list[int] = tokens.tolist()
    if min(read, default=0) < 0:
        raise NonFiniteLogits
    return read


class Forward(Protocol):
    """A forward pass: ids (rows, length) to logits (rows, kept, vocabulary)."""

    def __call__(self, ids: torch.Tensor, *, keep: int, **options: object) -> torch.Tensor:
        """Run it; keep: how many last places. `options` are the model's own arguments."""


class Rows(enum.Enum):
    """Which rows may be in one batch of a model; each is answered as if it were alone."""

    PADDED = "rows of any lengths"
    PADDED_AT_FIRST = "rows of any lengths; only the first pass gets a mask of the padding"
    EQUAL = "rows of one length"
    SINGLE = "one row"


class PaddedDecoder:
    """Greedy answers of one model, a batch at a time.

    rows: the kind of rows in a batch, never SINGLE. positions: whether the model takes position
    ids.
    """

    def __init__(
        self,
        forward: Forward,
        choice: Chooses,
        *,
        config: PreTrainedConfig,
        rows: Rows,
        positions: bool,
    ) -> None:
        self._forward = forward
        self._choice = choice
        self._config = config
        self._rows = rows
        self._positions = positions and rows is not Rows.EQUAL

    def answer(
        self, prompts: Sequence[Tokens], requests: Sequence[Prompt], *, device: torch.device
    ) -> list[list[int]]:
        """The tokens of each answer, with the one that ended it.

        prompts: token ids as the model reads them, one array a request. Raises NonFiniteLogits.
        """
        ones = [np.ones(len(prompt), dtype=np.int64) for prompt in prompts]
        padded = [pad(rows, side="left") for rows in (prompts, ones)]
        ids, mask = upload(np.stack(padded), device)  # (rows, longest) each
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        seen = self._seen(ids, mask)
        cache = DynamicCache(config=self._config)
        answers: list[list[int]] = [[] for _ in prompts]
        active = list(range(len(prompts)))
        masked = self._rows is not Rows.EQUAL
        while True:
            logits = self._forward(
                ids,
                keep=1,
                use_cache=True,
                attention_mask=mask if masked else None,
                position_ids=positions if self._positions else None,
                past=cache,
            )
            masked = self._rows is Rows.PADDED
            tokens = self._choice.best(logits[:, -1], seen)
            going = []
            for row, (index, token) in enumerate(zip(active, read_tokens(tokens), strict=True)):
                answers[index].append(token)
                if not self._choice.ended(answers[index], requests[index]):
                    going.append(row)
            if not going:
                return answers
            if len(going) < len(active):
                kept = upload(np.array(going), device)
                # Beam search moves rows like this, so every kind of cache can do it.
                cache.reorder_cache(kept)
                tokens, mask, positions = tokens[kept], mask[kept], positions[kept]
                seen = seen[kept] if seen is not None else None
                active = [active[row] for row in going]
            if seen is not None:
                seen.scatter_(1, tokens[:, None], True)
            ids = tokens[:, None]
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
            positions = positions[:, -1:] + 1

    def _seen(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor | None:
        """(rows, vocabulary): the tokens of each prompt, where a repetition penalty asks for it."""
        if not self._choice.penalised:
            return None
        shape = len(ids), self._choice.vocabulary
        counts = torch.zeros(shape, dtype=torch.long, device=ids.device)
        return counts.scatter_add_(1, ids, mask) > 0
