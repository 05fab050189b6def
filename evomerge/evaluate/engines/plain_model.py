"""A model read the plain way: one text at a time, its forward pass alone.

No cache, no padding, no mask, no positions and no sharing: what transformers makes of `input_ids`
by itself. It is slow and hard to get wrong, so the engines are held to it. It does not know
engines, tasks or merges.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from lm_eval.models.utils import resolve_max_length
from transformers import (
    AutoConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RepetitionPenaltyLogitsProcessor,
)
from transformers.utils import logging

from evomerge.errors import SourceError, one_line
from evomerge.evaluate.engines.base import Continuation, PlainAnswer, Prompt, Tokens
from evomerge.evaluate.engines.context import prompt_of, read_of
from evomerge.evaluate.engines.live_model import builder_of, end_tokens_of
from evomerge.evaluate.engines.plain import plain_logits
from evomerge.recipe import DType


class PlainModel:
    """A transformers model and what it decodes with.

    model: in evaluation mode. generation: its settings; only the repetition penalty, the end
    tokens and the longest answer count, as in greedy decoding. context_tokens: what of a text fits.
    """

    def __init__(
        self, model: PreTrainedModel, *, generation: GenerationConfig, context_tokens: int
    ) -> None:
        self.dtype: torch.dtype = model.dtype
        self.model = model
        self._context_tokens = context_tokens
        self._ends = frozenset(end_tokens_of(generation))
        penalty = float(generation.repetition_penalty or 1.0)
        self._limit_tokens = generation.max_new_tokens
        self._penalty = None if penalty == 1.0 else RepetitionPenaltyLogitsProcessor(penalty)

    @torch.inference_mode()
    def loglikelihood(self, request: Continuation) -> float:
        """Sum of the log-probabilities of the continuation, in nats, summed in float64."""
        read = read_of(request, context_tokens=self._context_tokens)
        logits = self.logits(read)[-request.scored :]
        targets = torch.from_numpy(request.tokens[-request.scored :].copy())
        chosen = torch.log_softmax(logits, dim=-1).gather(1, targets[:, None])
        return float(chosen.double().sum())

    @torch.inference_mode()
    def answer(self, request: Prompt, *, limit_tokens: int) -> PlainAnswer:
        """At most so many tokens of the greedy answer; every one reads the whole text again."""
        prompt = prompt_of(request, context_tokens=self._context_tokens)
        ids = torch.from_numpy(prompt.copy())
        rows: list[torch.Tensor] = []
        tokens: list[int] = []
        longest = request.up_to(self._limit_tokens).limit_tokens
        for _ in range(min(limit_tokens, longest)):
            row = self.logits(ids.numpy())[-1]
            if self._penalty is not None:
                row = self._penalty(ids[None], row[None])[0]
            rows.append(row)
            tokens.append(int(row.argmax()))
            if tokens[-1] in self._ends:
                break
            ids = torch.cat([ids, torch.tensor(tokens[-1:])])
        return PlainAnswer(
            tokens=tuple(tokens), logits=torch.stack(rows), ended=tokens[-1] in self._ends
        )

    def logits(self, text: Tokens) -> torch.Tensor:
        """(length, vocabulary) float32 on the CPU."""
        ids = torch.from_numpy(text.copy()).to(self.model.device)
        return plain_logits(self.model, ids).float().cpu()


def load_plain(
    folder: Path,
    *,
    dtype: DType,
    device: str | torch.device = "cpu",
    tokenizer: PreTrainedTokenizerBase | None = None,
    trust_remote_code: bool = False,
) -> PlainModel:
    """The model of a folder as transformers itself loads it: configuration, weights and settings.

    tokenizer: of the requests; it may know how long a text may be. Raises SourceError where
    transformers cannot load it.
    """
    try:
        with _quiet_transformers():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
            model = builder_of(config, folder).from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                trust_remote_code=trust_remote_code,
                local_files_only=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise SourceError(
            f"{folder}: transformers cannot load it ({one_line(error)}); get the files again"
        ) from error
    model.eval().to(device)
    return PlainModel(
        model,
        generation=model.generation_config,
        context_tokens=int(resolve_max_length(model.config, tokenizer)),
    )


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Its progress bars and reports would run through those of a search."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
