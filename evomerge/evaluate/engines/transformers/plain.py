"""The reference: plain transformers on one text at a time.

A text has its own pass, without padding, packing, a cache or a mask. An answer comes from
transformers' own `generate`. This is what lm-eval's Hugging Face model gives at a batch size of
one. It is slow, and every faster way in this package is checked against it.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterator
from pathlib import Path

import torch
from lm_eval.models.utils import resolve_max_length
from transformers import (
    AutoConfig,
    GenerationConfig,
    LogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
)
from transformers.utils import logging

from evomerge.errors import SourceError, one_line
from evomerge.evaluate.engines.base import (
    Continuation,
    PlainAnswer,
    Prompt,
    Tokens,
    prompt_of,
    read_of,
)
from evomerge.evaluate.engines.live_model import builder_of, end_tokens_of
from evomerge.evaluate.engines.transformers.decoding import Chooses, read_tokens
from evomerge.recipe import DType


def plain_logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Logits (length, vocabulary) of one text by itself; ids: (length,)."""
    options = {"use_cache": False} if "use_cache" in _parameters(model) else {}
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=ids[None], **options).logits
    return logits[0]


def plain_answer(
    model: PreTrainedModel, request: Prompt, choice: Chooses, *, context_tokens: int
) -> list[int]:
    """The tokens of one greedy answer, with the one that ended it.

    Raises NonFiniteLogits, TaskError if no prompt fits beside the answer.
    """
    prompt = torch.from_numpy(prompt_of(request, context_tokens=context_tokens)).to(model.device)
    chooser = _Chooser(choice, request)
    _generate(model, prompt, chooser, tokens=request.limit_tokens)
    return chooser.answer


def _generate(
    model: PreTrainedModel, prompt: torch.Tensor, chooser: _Chooser, *, tokens: int
) -> None:
    # `chooser` applies the checkpoint's settings of decoding; they must not be applied twice.
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
    """Makes `generate` take the token that `GreedyChoice` takes; answer: the tokens so far."""

    def __init__(self, choice: Chooses, request: Prompt) -> None:
        self.answer: list[int] = []
        self._choice = choice
        self._request = request

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (1, vocabulary) in which the chosen token has the highest one."""
        seen = None
        if self._choice.penalised:
            seen = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, input_ids, True)
        token = self._choice.best(scores, seen)
        self.answer += read_tokens(token)
        return torch.full_like(scores, -1.0).scatter_(1, token[:, None], 1.0)

    def ended(self) -> bool:
        """Whether the answer is complete."""
        return self._choice.ended(self.answer, self._request)


class _Ended(StoppingCriteria):  # type: ignore[misc]  # transformers has no types
    def __init__(self, chooser: _Chooser) -> None:
        self._chooser = chooser

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        return torch.full((len(input_ids),), self._chooser.ended(), device=input_ids.device)


def _parameters(model: PreTrainedModel) -> frozenset[str]:
    return frozenset(inspect.signature(model.forward).parameters)


# A model that reads one text at a time, by its forward pass alone.
#
# There is no cache, padding, mask, position or sharing: transformers gets `input_ids` and nothing
# else. That is slow but simple, so the engines are checked against it.


class PlainModel:
    """A transformers model and its settings of decoding.

    model: in evaluation mode. generation: only the repetition penalty, the end tokens and the
    longest answer count, as in greedy decoding. context_tokens: most tokens of a text.
    """

    def __init__(
        self, model: PreTrainedModel, *, generation: GenerationConfig, context_tokens: int
    ) -> None:
        self.dtype: torch.dtype = model.dtype
        self.model = model
        self._generation = generation
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
        """At most `limit_tokens` tokens of the greedy answer; each reads the whole text again."""
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

    def in_float32(self) -> PlainModel:
        """A copy of the model with arithmetic in float32; see Reference.in_float32."""
        return PlainModel(
            copy.deepcopy(self.model).float(),
            generation=self._generation,
            context_tokens=self._context_tokens,
        )

    def logits(self, text: Tokens) -> torch.Tensor:
        """Logits (length, vocabulary) of a text, float32 on the CPU."""
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

    tokenizer: of the requests; it may limit the length of a text. Packed weights are unpacked on
    every device: GPUs would round activations too. Raises SourceError if transformers cannot load
    it.
    """
    try:
        with _quiet_transformers():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
            packing = getattr(config, "quantization_config", None)
            packed: dict[str, object] = {}
            if isinstance(packing, dict):
                config.quantization_config = {**packing, "dequantize": True}
                packed["config"] = config
            model = builder_of(config, folder).from_pretrained(
                folder,
                **packed,
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
    """Hide progress bars and reports of transformers, which would disturb those of a search."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
