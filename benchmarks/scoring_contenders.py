"""Who scores the items: lm-eval's own model, ours, and transformers' continuous batching.

Each scores some items of a task once and says how long it took, what it answered, request by
request, and what its forward passes asked for. Tasks and models are made before and not timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from safetensors.torch import load_file
from scoring_work import Work
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    ContinuousBatchingConfig,
    GenerationConfig,
)

from evomerge.evaluate.engines.base import Continuation, LogLikelihood, Prompt
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.evaluate.suite import TaskSuite

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}
"""What seconds are of; the processor's, over all threads, where a machine is busy otherwise."""

PAGE_TOKENS = 256
"""Of keys and values, as transformers' continuous batching lays them out."""

STEP_TOKENS = 1024
"""That it reads in a pass at most; with 512 and with 2048 it took the same time within 3%."""


@dataclass(kw_only=True)
class Measured:
    """seconds: of one scoring of all items. answers: request by request. work: of its passes."""

    seconds: float
    answers: list[LogLikelihood | str]
    work: Work
    how: str


class Recorder:
    """Our engine, what it was asked and answered kept; the other calls pass through."""

    def __init__(self, engine: TransformersEngine) -> None:
        self._engine = engine
        self.answers: list[LogLikelihood | str] = []
        self.prompts: list[Prompt] = []

    def prepare(self, *, longest_tokens: int, longest_scored: int) -> None:
        """See Engine.prepare."""
        self._engine.prepare(longest_tokens=longest_tokens, longest_scored=longest_scored)

    def loglikelihood(self, requests: Sequence[Continuation]) -> list[LogLikelihood]:
        """See Engine.loglikelihood."""
        answers = self._engine.loglikelihood(requests)
        self.answers += answers
        return answers

    def generate(self, requests: Sequence[Prompt]) -> list[str]:
        """See Engine.generate."""
        answers = self._engine.generate(requests)
        self.answers += answers
        self.prompts += requests
        return answers


class StockModel(HFLM):  # type: ignore[misc]  # lm-eval has no types
    """lm-eval's own model, its two calls timed."""

    clock: Callable[[], float]
    seconds = 0.0

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
        """Tokenise, batch and score."""
        started = self.clock()
        answers = super().loglikelihood(requests, disable_tqdm=True)
        self.seconds += self.clock() - started
        return answers

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
        """Tokenise, batch and generate."""
        started = self.clock()
        answers = super().generate_until(requests, disable_tqdm=True)
        self.seconds += self.clock() - started
        return answers


class Contenders:
    """One model in a folder, and the tasks beside it."""

    def __init__(
        self,
        folder: Path,
        tasks: Path,
        *,
        clock: Callable[[], float],
        device: str,
        dtype: str,
        chat: Container[str] = (),
    ) -> None:
        """chat: the tasks whose prompts are put into the model's chat template."""
        self._tasks, self._clock, self._chat = tasks, clock, chat
        self.device, self.dtype, self.exact = device, dtype, dtype == "float32"
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        self._model = model.to(device).eval()
        self.engine = TransformersEngine(
            folder, tokenizer=self._tokenizer, dtype=dtype, device=device
        )
        self.engine.load(load_file(folder / "model.safetensors").items())
        self._suites: dict[str, TaskSuite] = {}
        self.parameters = self._model.num_parameters()

    def ours(self, task: str, *, items: int) -> tuple[Measured, list[Prompt]]:
        """Score the first items of a task, and the prompts that this asked for."""
        suite = self._suites.get(task)
        if suite is None:
            suite = TaskSuite.load(
                [task],
                tokenizer=self._tokenizer,
                folders=[self._tasks],
                apply_chat_template=task in self._chat,
            )
            self._suites[task] = suite
        recorder = Recorder(self.engine)
        with Work.of(self.engine.model) as work:
            started = self._clock()
            # What is not called is not there.
            suite.score(recorder, {task: tuple(range(items))})  # type: ignore[arg-type]
            seconds = self._clock() - started
        measured = Measured(seconds=seconds, answers=recorder.answers, work=work, how="tree")
        return measured, recorder.prompts

    def stock(self, task: str, *, items: int, batch_size: int) -> Measured:
        """The same by lm-eval's own evaluator and model."""
        model = StockModel(
            self._model,
            tokenizer=self._tokenizer,
            batch_size=batch_size,
            device=self.device,
            max_length=self.engine.context_tokens,
        )
        model.clock = self._clock
        with Work.of(self._model) as work:
            results = lm_eval.simple_evaluate(
                model=model,
                tasks=[task],
                samples={task: list(range(items))},
                task_manager=TaskManager(include_defaults=False, include_path=str(self._tasks)),
                bootstrap_iters=0,
                apply_chat_template=task in self._chat,
            )
        assert results is not None
        rows = sorted(results["samples"][task], key=lambda row: row["doc_id"])
        answers = [response[0] for row in rows for response in row["resps"]]
        return Measured(
            seconds=model.seconds, answers=answers, work=work, how=f"batches of {batch_size}"
        )

    def generate_batch(self, prompts: Sequence[Prompt]) -> Measured:
        """The answers to these prompts by transformers' continuous batching, tokenised before.

        It ends an answer at end tokens alone, so a stop text of more than one token is cut after.
        """
        limit_tokens, stop = prompts[0].limit_tokens, prompts[0].stop
        stops = [self._tokenizer.encode(text, add_special_tokens=False) for text in stop]
        ends = {self._tokenizer.eos_token_id, *(ids[0] for ids in stops if len(ids) == 1)}
        config = GenerationConfig(
            max_new_tokens=limit_tokens,
            do_sample=False,
            eos_token_id=sorted(ends - {None}),
            pad_token_id=0,
        )
        pages = sum(1 + (len(prompt.tokens) + limit_tokens) // PAGE_TOKENS for prompt in prompts)
        started = self._clock()
        with Work.of(self._model) as work:
            outputs = self._model.generate_batch(
                [prompt.tokens.tolist() for prompt in prompts],
                generation_config=config,
                continuous_batching_config=ContinuousBatchingConfig(
                    page_size=PAGE_TOKENS, num_blocks=pages, max_batch_tokens=STEP_TOKENS
                ),
                warmup=False,
            )
        seconds = self._clock() - started
        # As after each change of weights: its pages would outlive them.
        self._model.destroy_cached_continuous_batching_manager()
        numbered = sorted(outputs.items(), key=lambda output: int(output[0].rpartition("_")[2]))
        texts = [
            self._tokenizer.decode(output.generated_tokens, skip_special_tokens=True)
            for _, output in numbered
        ]
        for end in stop:
            texts = [text.partition(end)[0] for text in texts]
        return Measured(seconds=seconds, answers=[*texts], work=work, how="generate_batch")
