"""The reference: what plain transformers says of one text at a time.

A text is a pass of its own, without padding, packing, a cache or a mask, and an answer is that of
transformers' own `generate`: what lm-eval's Hugging Face model gives at a batch size of one. It is
slow, and what every faster way of this room is held against.
"""

from __future__ import annotations

import inspect

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    PreTrainedModel,
    StoppingCriteria,
)

from evomerge.evaluate.engines.base import Prompt
from evomerge.evaluate.engines.choosing import Chooses
from evomerge.evaluate.engines.context import prompt_of


def plain_logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Logits (length, vocabulary) of one text by itself; ids: (length,)."""
    spared = {"use_cache": False} if "use_cache" in _parameters(model) else {}
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=ids[None], **spared).logits
    return logits[0]


def plain_answer(
    model: PreTrainedModel, request: Prompt, choosing: Chooses, *, context_tokens: int
) -> list[int]:
    """The tokens of one greedy answer, the one that ended it included.

    Raises NonFiniteLogits, TaskError where no prompt fits beside the answer.
    """
    prompt = torch.from_numpy(prompt_of(request, context_tokens=context_tokens)).to(model.device)
    chooser = _Chooser(choosing, request)
    _generate(model, prompt, chooser, tokens=request.limit_tokens)
    return chooser.answer


def _generate(
    model: PreTrainedModel, prompt: torch.Tensor, chooser: _Chooser, *, tokens: int
) -> None:
    # What the checkpoint says of decoding is in `chooser`, and must not be heeded twice.
    kept, model.generation_config = model.generation_config, GenerationConfig()
    try:
        model.generate(
            input_ids=prompt[None],
            attention_mask=torch.ones_like(prompt)[None],
            generation_config=GenerationConfig(
                do_sample=False, use_cache=True, max_new_tokens=tokens, pad_token_id=0
            ),
            logits_processor=[chooser],
            stopping_criteria=[_Ended(chooser)],
        )
    finally:
        model.generation_config = kept


class _Chooser(LogitsProcessor):  # type: ignore[misc]  # transformers has no types
    """Makes `generate` take the token that `Choosing` takes; answer: the tokens so far."""

    def __init__(self, choosing: Chooses, request: Prompt) -> None:
        self.answer: list[int] = []
        self._choosing = choosing
        self._request = request

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (1, vocabulary) of which that token's is the highest."""
        seen = None
        if self._choosing.penalised:
            seen = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, input_ids, True)
        token = self._choosing.best(scores, seen)
        self.answer.append(int(token))
        return torch.full_like(scores, -1.0).scatter_(1, token[:, None], 1.0)

    def ended(self) -> bool:
        """Whether the answer is complete."""
        return self._choosing.ended(self.answer, self._request)


class _Ended(StoppingCriteria):  # type: ignore[misc]  # transformers has no types
    def __init__(self, chooser: _Chooser) -> None:
        self._chooser = chooser

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        return torch.full((len(input_ids),), self._chooser.ended(), device=input_ids.device)


def _parameters(model: PreTrainedModel) -> frozenset[str]:
    return frozenset(inspect.signature(model.forward).parameters)
