"""The in-process engine: a transformers model whose weights are replaced in place.

Numbers are those of lm-eval's own Hugging Face model at a batch size of one, up to rounding:
log-probabilities in the model's dtype, greedy decoding with the checkpoint's repetition penalty,
texts cut from the left to the model's context. It does not know tasks, metrics or merges.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lm_eval.models.utils import resolve_max_length
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from evomerge.errors import TaskError
from evomerge.evaluate.engines.base import (
    Continuation,
    LogLikelihood,
    NonFiniteLogits,
    Prompt,
    Tokens,
)
from evomerge.evaluate.engines.batching import (
    CPU_GENERATION_TOKENS,
    CPU_SCORING_TOKENS,
    cut,
    pad,
    probe_tokens,
)
from evomerge.evaluate.engines.decoding import GreedyDecoder
from evomerge.evaluate.engines.live_model import build_model, read_generation_config
from evomerge.evaluate.engines.placement import Placement
from evomerge.evaluate.engines.stopping import Stopping
from evomerge.recipe import DType
from evomerge.vocabulary import TokenSettings


class TransformersEngine:
    """One live model on one device.

    folder: a checkpoint folder whose config.json (and generation_config.json) describe the model;
    its weights are not read. settings: what they must say otherwise of the vocabulary. config: what
    the model's configuration says where that is not what lies in the folder. tokenizer: the one the
    requests were encoded with. dtype: of the parameters and of the arithmetic. device: "cpu",
    "cuda", "cuda:1". batch_size: rows of a batch, or "auto": a budget of tokens, fixed on a CPU,
    probed once on a GPU. hops, shared_hops: of routes, see Engine.
    Raises SourceError where no model can be built.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tokenizer: PreTrainedTokenizerBase,
        dtype: DType,
        device: str = "cpu",
        batch_size: int | Literal["auto"] = "auto",
        trust_remote_code: bool = False,
        settings: TokenSettings | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._settings = settings or TokenSettings()
        self.device = torch.device(device)
        self.model = build_model(
            folder,
            dtype=dtype,
            device=self.device,
            trust_remote_code=trust_remote_code,
            settings=self._settings,
            config=config,
        )
        self.forward_s = 0.0
        self.hops = self.shared_hops = 0
        self.context_tokens = int(resolve_max_length(self.model.config, tokenizer))
        self._folder = folder
        self._tokenizer = tokenizer
        self._placement = Placement(self.model)
        self._accepted = frozenset(inspect.signature(self.model.forward).parameters)
        self._rows = None if batch_size == "auto" else batch_size
        self._tokens: tuple[int, int] | None = None  # of a batch: scoring, generation
        if self._rows is None and self.device.type != "cuda":
            self._tokens = CPU_SCORING_TOKENS, CPU_GENERATION_TOKENS
        self._decoder: GreedyDecoder | None = None

    def destination(self, name: str) -> torch.Tensor | None:
        """Memory of the live model for a tensor of the checkpoint; see Engine.destination."""
        return self._placement.destination(name)

    def load(self, stream: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take the weights of a candidate in place; see Engine.load."""
        self._placement.fill(stream)

    def prepare(self, *, longest_tokens: int, longest_scored: int) -> None:
        """Find once how many tokens of a batch fit on a GPU, from its longest request."""
        if self._rows is not None or self._tokens is not None:
            return
        longest = max(1, min(longest_tokens, self.context_tokens))

        def try_batch(rows: int) -> None:
            ids = torch.zeros((rows, longest), dtype=torch.long, device=self.device)
            with torch.inference_mode():
                logits = self._forward(ids, keep=min(longest, longest_scored), use_cache=False)
                torch.log_softmax(logits, dim=-1)

        forward_s = self.forward_s
        budget = probe_tokens(try_batch, longest_tokens=longest)
        self.forward_s = forward_s  # probing is no part of any candidate
        self._tokens = budget, budget

    @torch.inference_mode()
    def loglikelihood(self, requests: Sequence[Continuation]) -> list[LogLikelihood]:
        """Log-probability of each continuation and whether it is the greedy one.

        Requests that differ in their last token only share a forward pass. Raises TaskError for a
        continuation longer than the model's context, NonFiniteLogits.
        """
        shared: dict[bytes, list[int]] = {}
        for index, request in enumerate(requests):
            if request.scored > self.context_tokens:
                raise TaskError(
                    f"a continuation of {request.scored} tokens is longer than the model's context "
                    f"of {self.context_tokens}; leave the item out of the task"
                )
            read = request.tokens[-(self.context_tokens + 1) : -1]
            shared.setdefault(read.tobytes(), []).append(index)
        rows = sorted(shared.items(), key=lambda row: (-len(row[0]), row[0]))
        inputs = [np.frombuffer(key, dtype=np.int64) for key, _ in rows]
        answers: dict[int, LogLikelihood] = {}
        for start, stop in self._cut([len(row) for row in inputs], generation=False):
            members = [(row, index) for row in range(start, stop) for index in rows[row][1]]
            scores = self._score_batch(
                inputs[start:stop], [(row - start, requests[index]) for row, index in members]
            )
            answers.update(
                (index, score) for (_, index), score in zip(members, scores, strict=True)
            )
        return [answers[index] for index in range(len(requests))]

    def _score_batch(
        self, rows: Sequence[Tokens], wanted: Sequence[tuple[int, Continuation]]
    ) -> list[LogLikelihood]:
        """Answers of one batch; wanted: (row, request) pairs."""
        padded = pad(rows, side="right")  # (rows, longest)
        longest = padded.shape[1]
        ends = np.array([len(rows[row]) for row, _ in wanted])
        counts = np.array([request.scored for _, request in wanted])
        keep = int((longest - ends + counts).max())
        spans = [np.arange(end - n, end) for end, n in zip(ends, counts, strict=True)]
        places = np.concatenate(spans) - (longest - keep)  # (scored,)
        owners = np.repeat([row for row, _ in wanted], counts)  # (scored,)
        targets = np.concatenate([request.tokens[-request.scored :] for _, request in wanted])

        # Padding is on the right, where causal attention never looks from a scored position.
        logits = self._score(padded, keep=keep)
        log_probabilities = torch.log_softmax(
            logits[self._tensor(owners), self._tensor(places)], dim=-1
        )  # (scored, vocabulary)
        target = self._tensor(targets)
        chosen = log_probabilities.gather(1, target[:, None])[:, 0]
        greedy = (log_probabilities.argmax(dim=-1) == target).cpu().numpy()
        values = chosen.double().cpu().numpy()  # (scored,)
        if not np.isfinite(values).all():
            raise NonFiniteLogits
        starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
        # lm-eval's sums have the dtype of the logits, and ties between choices follow from it.
        sums = torch.from_numpy(np.add.reduceat(values, starts)).to(logits.dtype).tolist()
        return list(zip(sums, np.logical_and.reduceat(greedy, starts).tolist(), strict=True))

    def _score(self, padded: NDArray[np.int64], *, keep: int) -> torch.Tensor:
        """Logits of the last `keep` positions of a padded batch of token ids, (rows, longest)."""
        return self._forward(self._tensor(padded), keep=keep, use_cache=False)

    @torch.inference_mode()
    def generate(self, requests: Sequence[Prompt]) -> list[str]:
        """Greedy answers; a row leaves its batch when its answer ends.

        Raises TaskError where no prompt fits beside an answer, NonFiniteLogits.
        """
        if not requests:
            return []
        decoder = self._prepare_decoder()
        prompts = [self._cut_prompt(request) for request in requests]
        order = sorted(
            range(len(requests)),
            key=lambda i: (-len(prompts[i]), -requests[i].limit_tokens, prompts[i].tobytes()),
        )
        lengths = np.array([len(prompts[i]) + requests[i].limit_tokens for i in order])
        # A short prompt may ask for a long answer: a batch has room for the longest of the rest.
        needed = np.maximum.accumulate(lengths[::-1])[::-1].tolist()
        texts = [""] * len(requests)
        for start, stop in self._cut(needed, generation=True):
            batch = order[start:stop]
            answers = decoder.answer(
                [prompts[i] for i in batch], [requests[i] for i in batch], device=self.device
            )
            for index, answer in zip(batch, answers, strict=True):
                texts[index] = decoder.stopping.text(answer, requests[index].stop)
        return texts

    def _cut_prompt(self, request: Prompt) -> Tokens:
        room = self.context_tokens - request.limit_tokens
        if room < 1:
            raise TaskError(
                f"max_gen_toks: {request.limit_tokens} leaves no room for a prompt in the model's "
                f"context of {self.context_tokens} tokens; set it lower in the task"
            )
        return request.tokens[-room:]

    def _forward(self, ids: torch.Tensor, *, keep: int, **options: object) -> torch.Tensor:
        """Logits of the last `keep` positions, (rows, keep, vocabulary); the pass is timed."""
        given: dict[str, object] = {"logits_to_keep": keep, **options}
        if "cache_params" in self._accepted:  # a state-space model, whose state is the past
            given["cache_params"] = given.pop("past_key_values", None)
            if ids.shape[1] == 1:
                given.pop("attention_mask", None)
        accepted = {name: value for name, value in given.items() if name in self._accepted}
        started = time.perf_counter()
        logits: torch.Tensor = self.model(input_ids=ids, **accepted).logits
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.forward_s += time.perf_counter() - started
        return logits[:, -keep:]

    def _cut(self, lengths: Sequence[int], *, generation: bool) -> list[tuple[int, int]]:
        if self._rows is not None:
            return cut(lengths, rows=self._rows)
        assert self._tokens is not None, "prepare() comes first"
        return cut(lengths, tokens=self._tokens[generation])

    def _tensor(self, array: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)

    def _prepare_decoder(self) -> GreedyDecoder:
        if self._decoder is None:
            config = read_generation_config(self._folder, self.model, self._settings)
            ends = config.eos_token_id
            listed = ends if isinstance(ends, list) else [ends]
            stopping = Stopping(
                self._tokenizer,
                end_tokens=[
                    end for end in (*listed, self._tokenizer.eos_token_id) if end is not None
                ],
            )
            self._decoder = GreedyDecoder(
                self._forward,
                config=self.model.config,
                generation_config=config,
                stopping=stopping,
            )
        return self._decoder
