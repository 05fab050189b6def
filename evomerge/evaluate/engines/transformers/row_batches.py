"""Answers requests in batches of whole rows, where texts are not read as a tree.

The rows of a batch depend on what the model reads exactly, see `limits`, and on the lengths of the
requests, never on time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from transformers import PreTrainedModel

from evomerge.errors import SourceError
from evomerge.evaluate.engines.base import Continuation, Prompt, Tokens
from evomerge.evaluate.engines.transformers.batching import cut
from evomerge.evaluate.engines.transformers.decoding import Chooses, Forward, PaddedDecoder, Rows
from evomerge.evaluate.engines.transformers.forward_options import ForwardOptions
from evomerge.evaluate.engines.transformers.limits import check_alone, try_rows
from evomerge.evaluate.engines.transformers.scoring import (
    RunPadded,
    Scores,
    padded_batch,
    score_padded,
)


class RowBatches:
    """Batches of one model; its parameters must be random at first, for trials.

    forward, score: its passes. options: what they take. rows: of a batch, if it is fixed.
    Raises SourceError if the model does not read text alone, or gives other logits the second time.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        forward: Forward,
        score: RunPadded,
        options: ForwardOptions,
        *,
        rows: int | None,
    ) -> None:
        self._model = model
        self._forward = forward
        self._options = options
        self._rows = rows
        device = model.device
        check_alone(model, score, options, device=device)
        self.limits = try_rows(model, score, self._answer_batch, device=device)

    def score(
        self,
        texts: Sequence[Tokens],
        owners: Sequence[Sequence[int]],
        requests: Sequence[Continuation],
        scores: Scores,
        run: RunPadded,
        *,
        tokens: int | None,
    ) -> None:
        """Score texts, longest first; see `score_padded`. tokens: of a batch, if not fixed."""
        lengths = [len(text) for text in texts]
        batches = [
            padded_batch(texts[start:stop], owners[start:stop], requests, scores.starts)
            for start, stop in self._cut(lengths, lengths, tokens, generation=False)
        ]
        score_padded(batches, scores, run, device=self._model.device)

    def answer(
        self,
        prompts: Sequence[Tokens],
        requests: Sequence[Prompt],
        choice: Chooses,
        answer_alone: Callable[[Prompt], list[int]],
        *,
        tokens: int | None,
    ) -> list[list[int]]:
        """The tokens of each answer. answer_alone: the answer to one request.

        Raises SourceError if the model cannot generate answers.
        """
        if self.limits.answered is None:
            raise SourceError(
                f"{type(self._model).__name__} generates no answers in this transformers; leave "
                "out tasks that need them"
            )
        order = sorted(
            range(len(requests)),
            key=lambda i: (-len(prompts[i]), -requests[i].limit_tokens, prompts[i].tobytes()),
        )
        lengths = [len(prompts[i]) for i in order]
        # A short prompt may need a long answer: a batch has room for the longest of the rest.
        limits = [len(prompts[i]) + requests[i].limit_tokens for i in order]
        needed = np.maximum.accumulate(limits[::-1])[::-1].tolist()
        rows = self.limits.of(max(needed), generation=True)
        answers: list[list[int]] = [[] for _ in requests]
        for start, stop in self._cut(needed, lengths, tokens, generation=True):
            batch = order[start:stop]
            if rows is Rows.SINGLE:
                found = [answer_alone(requests[i]) for i in batch]
            else:
                found = self._answer_batch(
                    [prompts[i] for i in batch], [requests[i] for i in batch], choice, rows
                )
            for index, answer in zip(batch, found, strict=True):
                answers[index] = answer
        return answers

    def _answer_batch(
        self,
        prompts: Sequence[Tokens],
        requests: Sequence[Prompt],
        choice: Chooses,
        rows: Rows,
    ) -> list[list[int]]:
        decoder = PaddedDecoder(
            self._forward,
            choice,
            config=self._model.config,
            rows=rows,
            positions=self._options.takes("position_ids"),
        )
        return decoder.answer(prompts, requests, device=self._model.device)

    def _cut(
        self,
        needed: Sequence[int],
        lengths: Sequence[int],
        tokens: int | None,
        *,
        generation: bool,
    ) -> list[tuple[int, int]]:
        """Ranges of one batch each; needed: most tokens that each request may reach."""
        rows = self.limits.of(max(needed), generation=generation)
        if rows is Rows.SINGLE:
            return cut(needed, rows=1)
        kinds = lengths if rows is Rows.EQUAL else None
        if self._rows is not None:
            return cut(needed, rows=self._rows, kinds=kinds)
        return cut(needed, tokens=tokens, kinds=kinds)
