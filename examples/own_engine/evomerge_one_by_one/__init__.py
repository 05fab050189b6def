"""One by one: plain transformers reads one text at a time. Slow, and as simple as an engine can be.

A whole scoring engine in a package of its own; `pip install ./examples/own_engine` adds it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from lm_eval.models.utils import resolve_max_length
from transformers import GenerationConfig, PreTrainedTokenizerBase

from evomerge.evaluate import (
    Continuation,
    GreedyChoice,
    LogLikelihood,
    NonFiniteLogits,
    PlainModel,
    Prompt,
    Stopping,
    WeightLoader,
    build_model,
    check_greedy,
    end_tokens_of,
    plain_answer,
    plain_logits,
    read_of,
)
from evomerge.sources import Source
from evomerge.vocabulary import config_folder, settings_of
from evomerge.workers import BuiltModels, PreparedJob, ScoringEngine, check_buildable


class OneByOne:
    """One live model on one device; what each method must do is said in evomerge.evaluate.Engine.

    lead: the model that it is built like. config: what its configuration says.
    """

    def __init__(
        self, preparation: PreparedJob, lead: Source, config: Mapping[str, Any], *, device: str
    ) -> None:
        self._model = build_model(  # its parameters have memory, and no values yet
            config_folder(lead),
            config=config,
            settings=settings_of(lead),
            dtype=preparation.out_dtype,
            device=torch.device(device),
            trust_remote_code=preparation.job.models.trust_remote_code,
        )
        self._weights = WeightLoader(self._model)  # knows where each tensor of a checkpoint goes
        self.forward_s = 0.0
        self.hops = self.shared_hops = 0

    def destination(self, name: str) -> torch.Tensor | None:
        """Where the merge may write a tensor at once."""
        return self._weights.destination(name)

    def load(self, stream: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take the weights of a candidate."""
        self._weights.fill(stream)

    def use(
        self, *, tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig, where: str
    ) -> None:
        """Answer with this tokenizer and these generation settings; called before every score."""
        self._generation, self._where = generation, where
        self._context_tokens = int(resolve_max_length(self._model.config, tokenizer))
        self._choice = GreedyChoice(
            generation_config=generation,
            stopping=Stopping(tokenizer, end_tokens=end_tokens_of(generation)),
            vocabulary=self._model.config.get_text_config().vocab_size,
        )

    def plain(self) -> PlainModel:
        """What the self-check holds merges to."""
        return PlainModel(
            self._model, generation=self._generation, context_tokens=self._context_tokens
        )

    def prepare(self, *, longest_tokens: int, longest_scored: int) -> None:
        """No batch size to choose."""

    def loglikelihood(self, requests: Sequence[Continuation]) -> list[LogLikelihood]:
        """The log-probability of each continuation, and whether it is the greedy one."""
        return [self._likelihood(request) for request in requests]

    def answer(self, requests: Sequence[Prompt]) -> list[list[int]]:
        """The tokens of each greedy answer."""
        check_greedy(self._generation, where=self._where)
        return [self._answer(request) for request in requests]

    def generate(self, requests: Sequence[Prompt]) -> list[str]:
        """The text of each greedy answer, cut at its stop texts."""
        return [
            self._choice.stopping.text(answer, request.stop)
            for answer, request in zip(self.answer(requests), requests, strict=True)
        ]

    def _likelihood(self, request: Continuation) -> LogLikelihood:
        started = time.perf_counter()
        read = read_of(request, context_tokens=self._context_tokens)
        ids = torch.from_numpy(read.copy()).to(self._model.device)
        logits = plain_logits(self._model, ids)[-request.scored :]  # (scored, vocabulary)
        likely = torch.log_softmax(logits, dim=-1).cpu()
        self.forward_s += time.perf_counter() - started
        targets = torch.from_numpy(request.tokens[-request.scored :].copy())
        chosen = likely.gather(1, targets[:, None]).double()
        if not bool(torch.isfinite(chosen).all()):
            raise NonFiniteLogits
        total = chosen.sum().to(likely.dtype)  # as lm-eval rounds it
        return float(total), bool((likely.argmax(dim=-1) == targets).all())

    def _answer(self, request: Prompt) -> list[int]:
        started = time.perf_counter()
        limited = request.up_to(self._choice.limit_tokens)
        answer = plain_answer(
            self._model, limited, self._choice, context_tokens=self._context_tokens
        )
        self.forward_s += time.perf_counter() - started
        return answer


def open_models(preparation: PreparedJob, *, device: str) -> BuiltModels:
    """The live models of one worker: one for each configuration that candidates have."""

    def build(lead: Source, config: Mapping[str, Any]) -> OneByOne:
        return OneByOne(preparation, lead, config, device=device)

    return BuiltModels(build, device=device)


ONE_BY_ONE = ScoringEngine(
    name="one_by_one",
    open_models=open_models,
    check_job=check_buildable,  # refuses what transformers cannot build, before a search begins
)
