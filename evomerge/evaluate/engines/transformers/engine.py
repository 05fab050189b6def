"""The in-process engine: a transformers model; its weights are replaced in place.

Numbers are those of lm-eval's own Hugging Face model at a batch size of one, up to rounding:
log-probabilities in the model's dtype, greedy decoding with the checkpoint's repetition penalty,
texts cut from the left to the model's context. If that is exact for the model, texts are read as a
tree, each shared token once; otherwise in padded batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lm_eval.models.utils import resolve_max_length
from numpy.typing import NDArray
from transformers import GenerationConfig, PreTrainedTokenizerBase

from evomerge.devices import upload
from evomerge.evaluate.engines.base import (
    Continuation,
    Generated,
    LogLikelihood,
    Prompt,
    Stopping,
    Tokens,
    prompt_of,
)
from evomerge.evaluate.engines.live_model import (
    build_model,
    check_greedy,
    end_tokens_of,
    read_generation_config,
)
from evomerge.evaluate.engines.transformers.batching import (
    CPU_GENERATION_TOKENS,
    CPU_SCORING_TOKENS,
    probe_tokens,
    tree_limits,
)
from evomerge.evaluate.engines.transformers.continuous import ContinuousDecoder
from evomerge.evaluate.engines.transformers.decoding import GreedyChoice
from evomerge.evaluate.engines.transformers.forward_options import ForwardOptions, randomise
from evomerge.evaluate.engines.transformers.key_values import TrunkCache
from evomerge.evaluate.engines.transformers.limits import longest_packed, packs_exactly
from evomerge.evaluate.engines.transformers.logit_selection import LogitSelection
from evomerge.evaluate.engines.transformers.pass_clock import PassClock
from evomerge.evaluate.engines.transformers.plain import PlainModel, plain_answer
from evomerge.evaluate.engines.transformers.row_batches import RowBatches
from evomerge.evaluate.engines.transformers.scoring import Scores, read_texts
from evomerge.evaluate.engines.transformers.token_tree import KeptPlans, Plan
from evomerge.evaluate.engines.transformers.tree_passes import PlacedPass, run_pass, score_tree
from evomerge.evaluate.engines.weight_loader import WeightLoader
from evomerge.recipe import DType
from evomerge.vocabulary import TokenSettings


class TransformersEngine:
    """One live model on one device.

    folder: a checkpoint folder; its config.json (and generation_config.json) describe the model,
    its weights are not read. settings: values of the vocabulary that replace those of the files.
    config: used in place of config.json. tokenizer: it encoded the requests. dtype: of the
    parameters and of the arithmetic. device: "cpu", "cuda", "cuda:1". batch_size: rows of a padded
    batch, as lm-eval makes them, or "auto": a budget of tokens, fixed on a CPU, probed once on a
    GPU, and texts read as a tree.
    hops, shared_hops: of routes, see Engine.
    Raises SourceError if no model can be built.
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
        self._clock = PassClock(self.device)
        self.hops = self.shared_hops = 0
        self.context_tokens = int(resolve_max_length(self.model.config, tokenizer))
        self._folder = folder
        self._stated = config
        self._tokenizer = tokenizer
        self._generation: GenerationConfig | None = None  # None: that of the folder
        self._where = str(folder)
        self._loader = WeightLoader(self.model)
        self._options = ForwardOptions(self.model)
        self._rows = None if batch_size == "auto" else batch_size
        self._tokens: tuple[int, int] | None = None  # of a batch: scoring, generation
        if self._rows is None and self.device.type != "cuda":
            self._tokens = CPU_SCORING_TOKENS, CPU_GENERATION_TOKENS
        self._choice: GreedyChoice | None = None
        self._plans = KeptPlans()
        self._wanted: LogitSelection | None = None  # where texts are packed
        randomise(self.model)  # the real parameters come later
        with self._clock.paused():  # a trial is not part of any candidate
            self._longest_packed = self._try_packing()
            self._batches = None if self._longest_packed is None else self._try_rows()

    @property
    def forward_s(self) -> float:
        """Seconds of forward passes so far; see Engine."""
        return self._clock.seconds

    def _try_packing(self) -> int | None:
        """The result of `longest_packed`, or 0 if a trial fails even with complete passes."""
        if self._rows is not None:
            return 0
        longest = longest_packed(self.model.config, self._options)
        if longest == 0:
            return 0
        wanted = self._wanted = LogitSelection(self.model)
        exact = self._packs_exactly()
        for keep in (wanted.keep_last_layer, wanted.keep_head):
            if not exact and keep():
                exact = self._packs_exactly()
        return longest if exact else 0

    def _try_rows(self) -> RowBatches:
        return RowBatches(self.model, self._forward, self._read, self._options, rows=self._rows)

    def _packs_exactly(self) -> bool:
        return packs_exactly(self.model, self._forward, self._forward_cells, device=self.device)

    def use(
        self, *, tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig, where: str
    ) -> None:
        """Take another tokenizer and other generation settings; see Engine.use."""
        if self._tokenizer is tokenizer and self._generation is generation:
            return
        self._tokenizer, self._generation, self._where = tokenizer, generation, where
        self.context_tokens = int(resolve_max_length(self.model.config, tokenizer))
        self._choice = None

    def plain(self) -> PlainModel:
        """The live model read one text at a time; see Engine.plain."""
        assert self._generation is not None, "use() comes first"
        return PlainModel(
            self.model, generation=self._generation, context_tokens=self.context_tokens
        )

    def destination(self, name: str) -> torch.Tensor | None:
        """Memory of the live model for a tensor of the checkpoint; see Engine.destination."""
        return self._loader.destination(name)

    def load(self, stream: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take the weights of a candidate in place; see Engine.load."""
        self._loader.fill(stream)

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

        with self._clock.paused():  # probing is not part of any candidate
            budget = probe_tokens(try_batch, longest_tokens=longest)
        self._tokens = budget, budget

    @torch.inference_mode()
    def loglikelihood(self, requests: Sequence[Continuation]) -> list[LogLikelihood]:
        """Log-probability of each continuation and whether it is the greedy one.

        Requests that differ in their last token only share a text. Raises TaskError for a
        continuation longer than the model's context, NonFiniteLogits.
        """
        if not requests:
            return []
        texts, owners = read_texts(requests, context_tokens=self.context_tokens)
        plan = self._plan(texts, needed=0, generation=False)
        if plan is not None:
            return self._score_plan(requests, owners, plan)
        scores = Scores(requests)
        assert self._batches is not None
        tokens = None if self._tokens is None else self._tokens[False]
        self._batches.score(texts, owners, requests, scores, self._score, tokens=tokens)
        return scores.answers()

    def _score_plan(
        self, requests: Sequence[Continuation], owners: Sequence[Sequence[int]], plan: Plan
    ) -> list[LogLikelihood]:
        return score_tree(requests, owners, plan, self._run_pass, device=self.device)

    def _score(self, padded: NDArray[np.int64], *, keep: int) -> torch.Tensor:
        """Logits of the last `keep` positions of a padded batch of token ids, (rows, longest)."""
        return self._read(padded, keep=keep)

    def _read(self, padded: NDArray[np.int64], *, keep: int) -> torch.Tensor:
        return self._forward(self._tensor(padded), keep=keep, use_cache=False)

    def _run_pass(self, placed: PlacedPass, cache: TrunkCache) -> torch.Tensor:
        """Logits (cells, vocabulary) of one pass over a tree of texts."""
        return run_pass(self._forward_cells, placed, cache, dtype=self.model.dtype)

    def generate(self, requests: Sequence[Prompt]) -> list[str]:
        """Greedy answers as texts, cut as lm-eval cuts them; see `answer`."""
        if not requests:
            return []
        stopping = self._prepare_choosing().stopping
        answers = self.answer(requests)
        return [
            stopping.text(answer, request.stop)
            for answer, request in zip(answers, requests, strict=True)
        ]

    def generate_counted(self, requests: Sequence[Prompt]) -> list[Generated]:
        """Greedy answers, and how they ended; see CountingEngine."""
        if not requests:
            return []
        stopping = self._prepare_choosing().stopping
        answers = self.answer(requests)
        return [
            stopping.counted(answer, request.stop)
            for answer, request in zip(answers, requests, strict=True)
        ]

    @torch.inference_mode()
    def answer(self, requests: Sequence[Prompt]) -> list[list[int]]:
        """Tokens of greedy answers; an answer that ends makes room for the next prompt.

        Raises TaskError where no prompt fits beside an answer, NonFiniteLogits.
        """
        if not requests:
            return []
        choice = self._prepare_choosing()
        requests = [request.up_to(choice.limit_tokens) for request in requests]
        prompts = [prompt_of(request, context_tokens=self.context_tokens) for request in requests]
        shared: dict[bytes, list[int]] = {}
        for index, prompt in enumerate(prompts):
            shared.setdefault(prompt.tobytes(), []).append(index)
        owners = list(shared.values())
        texts = [prompts[indices[0]] for indices in owners]
        needed = max(len(p) + r.limit_tokens for p, r in zip(prompts, requests, strict=True))
        plan = self._plan(texts, needed=needed, generation=True)
        if plan is None:
            assert self._batches is not None
            return self._batches.answer(
                prompts,
                requests,
                choice,
                partial(self._answer_alone, choice=choice),
                tokens=None if self._tokens is None else self._tokens[True],
            )
        assert self._tokens is not None
        decoder = ContinuousDecoder(
            self._forward,
            self._run_pass,
            choice,
            device=self.device,
            dtype=self.model.dtype,
        )
        return decoder.answer(texts, owners, requests, plan, limit_tokens=self._tokens[True])

    def _answer_alone(self, request: Prompt, *, choice: GreedyChoice) -> list[int]:
        """The tokens of one answer, as plain transformers gives it; timed as a whole."""
        with self._clock.passing():
            return plain_answer(self.model, request, choice, context_tokens=self.context_tokens)

    def _forward(self, ids: torch.Tensor, *, keep: int, **options: object) -> torch.Tensor:
        """Logits (rows, kept, vocabulary) of the last `keep` positions."""
        return self._run(ids, logits_to_keep=keep, **options)[:, -keep:]

    def _forward_cells(
        self, ids: torch.Tensor, *, cells: torch.Tensor, **options: object
    ) -> torch.Tensor:
        """Logits (cells, vocabulary) of the cells with these numbers, row by row."""
        assert self._wanted is not None
        with self._wanted.only(cells):
            if self._wanted.spares_head:
                return self._run(ids, logits_to_keep=0, **options)[0]
            # A model can only compute the same columns of all rows.
            columns, places = torch.unique(cells % ids.shape[1], return_inverse=True)
            logits = self._run(ids, logits_to_keep=columns, **options)
        if logits.shape[1] != len(columns):
            logits = logits[:, columns]
        return logits[cells.div(ids.shape[1], rounding_mode="floor"), places]

    def _run(self, ids: torch.Tensor, **options: object) -> torch.Tensor:
        """The model's logits for ids (rows, length), see ForwardOptions.named; timed."""
        accepted = self._options.named(options)
        with self._clock.passing():
            logits: torch.Tensor = self.model(input_ids=ids, **accepted).logits
        return logits

    def _tensor(self, array: NDArray[np.int64]) -> torch.Tensor:
        return upload(array, self.device)

    def _plan(self, texts: Sequence[Tokens], *, needed: int, generation: bool) -> Plan | None:
        """Passes over the tree of texts; None where only padded batches are exact.

        needed: tokens of the longest text and its answer.
        """
        if self._longest_packed == 0:
            return None
        assert self._tokens is not None, "prepare() comes first"
        limits = tree_limits(self.model.config, pass_tokens=self._tokens[False])
        plan = self._plans.plan(texts, limits)
        longest = max(
            needed, *(tree_pass.past + tree_pass.ids.shape[1] for tree_pass in plan.passes)
        )
        return plan if self._longest_packed is None or longest <= self._longest_packed else None

    def _prepare_choosing(self) -> GreedyChoice:
        if self._choice is None:
            config = self._generation
            if config is None:
                config = read_generation_config(self._folder, self._stated, self._settings)
            check_greedy(config, where=self._where)
            stopping = Stopping(self._tokenizer, end_tokens=end_tokens_of(config))
            self._choice = GreedyChoice(
                generation_config=config,
                stopping=stopping,
                vocabulary=self.model.config.get_text_config().vocab_size,
            )
        return self._choice
