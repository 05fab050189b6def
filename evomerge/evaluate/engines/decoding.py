"""Greedy decoding of left-padded batches with a KV cache.

Equal to transformers' `generate` with sampling off, run prompt by prompt: a row leaves its batch
when its answer ends, and a repetition penalty counts the prompt but no padding. It does not know
how requests are batched or how texts are decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedConfig

from evomerge.evaluate.engines.base import NonFiniteLogits, Prompt, Tokens
from evomerge.evaluate.engines.batching import pad
from evomerge.evaluate.engines.stopping import Stopping


class Forward(Protocol):
    """A forward pass: ids (rows, length) to logits (rows, keep, vocabulary)."""

    def __call__(self, ids: torch.Tensor, *, keep: int, **options: object) -> torch.Tensor:
        """Run it; `options` are the model's own keyword arguments."""


class GreedyDecoder:
    """Greedy answers of one model; `stopping` says when one ends."""

    def __init__(
        self,
        forward: Forward,
        *,
        config: PreTrainedConfig,
        generation_config: GenerationConfig,
        stopping: Stopping,
    ) -> None:
        self.stopping = stopping
        self._forward = forward
        self._config = config
        penalty = generation_config.repetition_penalty
        self._penalty = None if penalty in (None, 1.0) else float(penalty)

    def answer(
        self, prompts: Sequence[Tokens], requests: Sequence[Prompt], *, device: torch.device
    ) -> list[list[int]]:
        """The tokens of each answer, the one that ended it included.

        prompts: token ids as the model reads them, one array a request. Raises NonFiniteLogits.
        """
        ids = torch.from_numpy(pad(prompts, side="left")).to(device)  # (rows, longest)
        ones = [np.ones(len(prompt), dtype=np.int64) for prompt in prompts]
        mask = torch.from_numpy(pad(ones, side="left")).to(device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        seen = self._seen(ids, mask)
        cache = DynamicCache(config=self._config)
        answers: list[list[int]] = [[] for _ in prompts]
        active = list(range(len(prompts)))
        while True:
            logits = self._forward(
                ids,
                keep=1,
                use_cache=True,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
            )
            tokens = self._best(logits[:, -1].float(), seen)
            going = []
            for row, (index, token) in enumerate(zip(active, tokens.tolist(), strict=True)):
                answers[index].append(token)
                if not self._ended(answers[index], requests[index]):
                    going.append(row)
            if not going:
                return answers
            if len(going) < len(active):
                kept = torch.tensor(going, device=device)
                cache.batch_select_indices(kept)
                tokens, mask, positions = tokens[kept], mask[kept], positions[kept]
                seen = seen[kept] if seen is not None else None
                active = [active[row] for row in going]
            if seen is not None:
                seen.scatter_(1, tokens[:, None], True)
            ids = tokens[:, None]
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
            positions = positions[:, -1:] + 1

    def _best(self, logits: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """The next token of each row; logits, seen: (rows, vocabulary)."""
        if seen is not None and self._penalty is not None:
            penalised = torch.where(logits < 0, logits * self._penalty, logits / self._penalty)
            logits = torch.where(seen, penalised, logits)
        best, tokens = logits.max(dim=-1)
        # A NaN anywhere in a row is its maximum.
        if not bool(torch.isfinite(best).all()):
            raise NonFiniteLogits
        return tokens

    def _ended(self, answer: list[int], request: Prompt) -> bool:
        return len(answer) >= request.limit_tokens or self.stopping.ended(answer, request.stop)

    def _seen(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor | None:
        """(rows, vocabulary): the tokens of each prompt, where a repetition penalty asks for it."""
        if self._penalty is None:
            return None
        vocabulary = self._config.get_text_config().vocab_size
        counts = torch.zeros((len(ids), vocabulary), dtype=torch.long, device=ids.device)
        return counts.scatter_add_(1, ids, mask) > 0
