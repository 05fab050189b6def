"""The vLLM engine: one live model in this process; its weights are replaced in place.

Numbers are those of `TransformersEngine` up to rounding. Log-probabilities are float32 for every
dtype of the model, as in lm-eval's own vLLM model. It was run on CPUs, never on a GPU.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lm_eval.models.utils import resolve_max_length
from transformers import GenerationConfig, PreTrainedTokenizerBase

from evomerge.errors import SourceError
from evomerge.evaluate.engines.base import (
    Continuation,
    Generated,
    LogLikelihood,
    NonFiniteLogits,
    Prompt,
    Stopping,
    Tokens,
    prompt_of,
    read_of,
)
from evomerge.evaluate.engines.live_model import (
    build_model,
    check_greedy,
    end_tokens_of,
    read_generation_config,
)
from evomerge.evaluate.engines.vllm.start import start_vllm
from evomerge.evaluate.engines.vllm.weights import CheckedStream, Tensors
from evomerge.evaluate.engines.weight_loader import WeightLoader
from evomerge.recipe import DType
from evomerge.vocabulary import TokenSettings

_HEAD = "lm_head.weight"
"""Name of the head in the served classes, in checkpoints and in vLLM."""

_MOST_LAST_TOKENS = 128
"""Most last tokens that vLLM scores in one pass over a text."""

_Probability = Any
"""vLLM's `Logprob`: logprob, rank (1 is the most likely token)."""


class _Request(NamedTuple):
    """A request to vLLM.

    tokens: (n,) what the model reads. settings: of vLLM's `SamplingParams`.
    """

    tokens: Tokens
    settings: Mapping[str, Any]


class _Step(NamedTuple):
    """The result of one forward pass for a request.

    tokens: the new tokens. scores: for each of them, the tokens that were scored in its place.
    read: the same for the tokens that were read, None for the first; empty if not requested.
    """

    tokens: Sequence[int]
    scores: Sequence[Mapping[int, _Probability]]
    read: Sequence[Mapping[int, _Probability] | None]


_Take = Callable[[int, _Step], bool]
"""Called with a request's number and its result; returns whether the request goes on."""


def check_answers(generation: GenerationConfig, *, where: str) -> None:
    """Raise SourceError for generation settings that are not supported here."""
    check_greedy(generation, where=where)
    if generation.max_new_tokens is not None:  # may be longer than vLLM's caches
        raise SourceError(
            f"{where}/generation_config.json: max_new_tokens: {generation.max_new_tokens} is "
            "not supported by vllm; remove the field, or set compute.engine to transformers"
        )


class VllmEngine:
    """One live model. Answers depend on the requests of a call, their order, and the weights.

    folder, tokenizer, dtype, settings, config: as of TransformersEngine. longest_tokens: of the
    longest request with its answer. device: "cpu" or "cuda". batch_size: most requests of a forward
    pass. Raises SourceError if vLLM does not serve the model.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tokenizer: PreTrainedTokenizerBase,
        dtype: DType,
        longest_tokens: int,
        device: str = "cpu",
        batch_size: int | Literal["auto"] = "auto",
        settings: TokenSettings | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        settings = settings or TokenSettings()
        # For names and shapes as in transformers; its parameters have no memory.
        described = build_model(
            folder,
            dtype=dtype,
            device=torch.device("meta"),
            trust_remote_code=False,
            settings=settings,
            config=config,
        )
        self.forward_s = 0.0
        self.hops = self.shared_hops = 0
        self.context_tokens = int(resolve_max_length(described.config, tokenizer))
        self._loader = WeightLoader(described)
        live_config = copy.deepcopy(described.config)
        live_config.tie_word_embeddings = False
        self._heads: dict[str, str] = {}
        if described.config.tie_word_embeddings:
            owner = self._loader.owner(_HEAD)
            assert owner is not None and owner != _HEAD, owner
            self._heads[owner] = _HEAD
        # One token more, because vLLM always generates one.
        longest_tokens = min(longest_tokens, self.context_tokens) + 1
        self._live = start_vllm(
            live_config,
            dtype=dtype,
            device=device,
            rows=None if batch_size == "auto" else batch_size,
            longest_tokens=longest_tokens,
            where=str(folder),
        )
        self._config = described.config
        self._used: tuple[PreTrainedTokenizerBase, GenerationConfig] | None = None
        generation = read_generation_config(folder, config, settings)
        self.use(tokenizer=tokenizer, generation=generation, where=str(folder))

    def use(
        self, *, tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig, where: str
    ) -> None:
        """Take another tokenizer and other generation settings; see Engine.use."""
        if self._used is not None and self._used[0] is tokenizer and self._used[1] is generation:
            return
        check_answers(generation, where=where)
        self._used = tokenizer, generation
        self.context_tokens = int(resolve_max_length(self._config, tokenizer))
        self._penalty = float(generation.repetition_penalty or 1.0)
        self._stopping = Stopping(tokenizer, end_tokens=end_tokens_of(generation))

    def plain(self) -> None:
        """None: vLLM cannot read a text without its own cache; see Engine.plain."""

    def destination(self, name: str) -> torch.Tensor | None:
        """None: vLLM packs weights in its own way, so `load` must give them to it; see Engine."""
        return None

    def load(self, stream: Tensors) -> None:
        """Take the weights of a candidate in place; see Engine.load."""
        checked = CheckedStream(stream, self._loader, heads=self._heads)
        self._live.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(checked)})
        checked.check()

    def prepare(self, *, longest_tokens: int, longest_scored: int) -> None:
        """Do nothing: vLLM chooses its batches itself."""

    def loglikelihood(self, requests: Sequence[Continuation]) -> list[LogLikelihood]:
        """Log-probability of each continuation and whether it is the greedy one.

        Requests that differ in their last token only are read once, and the last token needs only
        its own logits. A token before the last one counts as not greedy if it ties for the most
        likely. Raises TaskError for a continuation longer than the model's context,
        NonFiniteLogits.
        """
        shared: dict[bytes, list[int]] = {}
        for index, request in enumerate(requests):
            read = read_of(request, context_tokens=self.context_tokens)
            shared.setdefault(read.tobytes(), []).append(index)
        groups = [
            (np.frombuffer(key, dtype=np.int64), members[start : start + _MOST_LAST_TOKENS])
            for key, members in shared.items()
            for start in range(0, len(members), _MOST_LAST_TOKENS)
        ]
        answers: dict[int, LogLikelihood] = {}

        def take(place: int, step: _Step) -> bool:
            for index in groups[place][1]:
                answers[index] = _likelihood(requests[index], step)
            return False

        self._ask(
            [_Request(read, _scoring([requests[i] for i in members])) for read, members in groups],
            take,
        )
        return [answers[index] for index in range(len(requests))]

    def generate(self, requests: Sequence[Prompt]) -> list[str]:
        """Greedy answers as texts, cut as lm-eval cuts them; see `answer`."""
        return [
            self._stopping.text(answer, request.stop)
            for answer, request in zip(self.answer(requests), requests, strict=True)
        ]

    def generate_counted(self, requests: Sequence[Prompt]) -> list[Generated]:
        """Greedy answers, and how they ended; see CountingEngine."""
        return [
            self._stopping.counted(answer, request.stop)
            for answer, request in zip(self.answer(requests), requests, strict=True)
        ]

    def answer(self, requests: Sequence[Prompt]) -> list[list[int]]:
        """Tokens of greedy answers.

        Raises TaskError where no prompt fits beside an answer, NonFiniteLogits.
        """
        answers: list[list[int]] = [[] for _ in requests]

        def take(place: int, step: _Step) -> bool:
            for token, scores in zip(step.tokens, step.scores, strict=True):
                # NaN and infinity anywhere in the logits make every probability NaN.
                if not np.isfinite(scores[token].logprob):
                    raise NonFiniteLogits
                answers[place].append(token)
                if self._stopping.ended(answers[place], requests[place].stop):
                    return False
            return True

        self._ask([self._request_of(request) for request in requests], take)
        return answers

    def _request_of(self, request: Prompt) -> _Request:
        settings = {
            "max_tokens": request.limit_tokens,
            "logprobs": 0,
            "repetition_penalty": self._penalty,
            "stop_token_ids": sorted(self._stopping.end_tokens),
        }
        return _Request(prompt_of(request, context_tokens=self.context_tokens), settings)

    def _ask(self, requests: Iterable[_Request], take: _Take) -> None:
        """Run all requests together; `take` gets the result of each request, pass by pass."""
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        # The cache of an earlier call would change roundings, and after `load` the answers.
        self._live.reset_prefix_cache()
        going: set[str] = set()
        try:
            for number, request in enumerate(requests):
                settings = SamplingParams(
                    temperature=0.0,
                    ignore_eos=True,
                    detokenize=False,
                    output_kind=RequestOutputKind.DELTA,
                    **request.settings,
                )
                going.add(str(number))
                self._live.add_request(
                    str(number), {"prompt_token_ids": request.tokens.tolist()}, settings
                )
            # Otherwise vLLM compiles the ranking of tokens: that takes seconds and a C++ compiler.
            with torch.compiler.set_stance("force_eager"):
                while self._live.has_unfinished_requests():
                    self._pass(going, take)
        finally:
            self._live.abort_request(sorted(going))

    def _pass(self, going: set[str], take: _Take) -> None:
        started = time.perf_counter()
        outputs = self._live.step()
        self.forward_s += time.perf_counter() - started
        ended = []
        for output in outputs:
            completion = output.outputs[0]
            step = _Step(completion.token_ids, completion.logprobs, output.prompt_logprobs or ())
            more = take(int(output.request_id), step)
            if output.finished or not more:
                going.discard(output.request_id)
            if not more and not output.finished:
                ended.append(output.request_id)
        self._live.abort_request(ended)


def _scoring(requests: Sequence[Continuation]) -> dict[str, Any]:
    """Sampling settings that score continuations that differ in their last token only."""
    settings: dict[str, Any] = {
        "max_tokens": 1,
        "logprob_token_ids": sorted({int(request.tokens[-1]) for request in requests}),
    }
    if max(request.scored for request in requests) > 1:
        # vLLM then computes logits of the whole text, and does not share its beginning.
        settings["prompt_logprobs"] = 0
    return settings


def _likelihood(request: Continuation, step: _Step) -> LogLikelihood:
    """The answer to one request, from the pass that generated a token in place of its last one."""
    last = int(request.tokens[-1])
    values = [step.scores[0][last].logprob]
    greedy = step.tokens[0] == last
    inner = request.tokens[-request.scored : -1].tolist()
    places = step.read[len(step.read) - len(inner) :]
    for token, scores in zip(inner, places, strict=True):
        assert scores is not None, "a continuation has something before it"
        values.append(scores[token].logprob)
        greedy = greedy and scores[token].rank == 1
    if not np.isfinite(values).all():
        raise NonFiniteLogits
    # Rounded to float32, so that equal continuations tie in any order.
    return float(np.float32(np.sum(values))), bool(greedy)
