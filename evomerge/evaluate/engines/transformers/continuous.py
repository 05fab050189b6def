"""Greedy decoding without fixed batches: when a row ends, the next prompt takes its place.

Prompts are read as one tree, so tokens that they share are read once. Every answer then has its own
row of keys and values. Answers are those of transformers' `generate` without sampling, run prompt
by prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from evomerge.evaluate.engines.base import Prompt, Tokens
from evomerge.evaluate.engines.transformers.batching import pad
from evomerge.evaluate.engines.transformers.decoding import Forward, GreedyChoice
from evomerge.evaluate.engines.transformers.key_values import AnswerCache, States
from evomerge.evaluate.engines.transformers.token_tree import Plan
from evomerge.evaluate.engines.transformers.tree_passes import RunPass, run_passes, run_step


@dataclass(kw_only=True, eq=False)
class _Answer:
    """An answer that is being generated.

    tokens: those so far. seen: (vocabulary,) which tokens the prompt and the answer hold. longest:
    most tokens of the prompt and the answer together.
    """

    request: Prompt
    tokens: list[int]
    seen: torch.Tensor | None
    longest: int


@dataclass(frozen=True, kw_only=True, eq=False)
class _Begun:
    """Answers with a first token, and the states and lengths of their prompts."""

    answers: Sequence[_Answer]
    states: States
    lengths: Sequence[int]


class ContinuousDecoder:
    """Greedy answers of one model.

    forward: a pass of one token a row. run: a pass of prompts. dtype: of masks, the model's.
    """

    def __init__(
        self,
        forward: Forward,
        run: RunPass,
        choice: GreedyChoice,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._forward = forward
        self._run = run
        self._choice = choice
        self._device = device
        self._dtype = dtype

    def answer(
        self,
        prompts: Sequence[Tokens],
        owners: Sequence[Sequence[int]],
        requests: Sequence[Prompt],
        plan: Plan,
        *,
        limit_tokens: int,
    ) -> list[list[int]]:
        """The tokens of each request's answer, with the one that ended it.

        prompts: distinct, in the order of the plan. owners: the requests of each. limit_tokens: of
        all rows, each counted as long as the longest. Raises NonFiniteLogits.
        """
        answers: list[list[int]] = [[] for _ in requests]
        begun = self._begin(prompts, owners, requests, plan, answers, limit_tokens)
        upcoming = next(begun, None)
        active: list[_Answer] = []
        cache = AnswerCache(device=self._device)
        while upcoming is not None or active:
            while upcoming is not None and (
                not active or _rows_within([*active, *upcoming.answers], limit_tokens)
            ):
                room = max(answer.longest for answer in upcoming.answers)
                cache.add(upcoming.states, upcoming.lengths, room=room)
                active += upcoming.answers
                upcoming = next(begun, None)
            self._step(active, cache)
        return answers

    def _begin(
        self,
        prompts: Sequence[Tokens],
        owners: Sequence[Sequence[int]],
        requests: Sequence[Prompt],
        plan: Plan,
        answers: Sequence[list[int]],
        limit_tokens: int,
    ) -> Iterator[_Begun]:
        """Read prompts, pass by pass, and yield the answers that go on after their first token.

        Each group of answers that is yielded keeps to `limit_tokens`.
        """
        wanted = {
            number: np.array(
                [plan.places[text].cells[-1] for text in tree_pass.texts], dtype=np.int64
            )
            for number, tree_pass in enumerate(plan.passes)
        }
        for number, logits, trunk in run_passes(plan, wanted, self._run, device=self._device):
            texts = plan.passes[number].texts
            if not texts:
                continue
            seen = self._seen([prompts[text] for text in texts])
            tokens = self._choice.best(logits, seen).tolist()
            going: list[tuple[int, _Answer]] = []
            for row, text in enumerate(texts):
                for index in owners[text]:
                    answers[index].append(tokens[row])
                    if self._choice.ended(answers[index], requests[index]):
                        continue
                    answer = _Answer(
                        request=requests[index],
                        tokens=answers[index],
                        seen=None if seen is None else seen[row].clone(),
                        longest=len(prompts[text]) + requests[index].limit_tokens,
                    )
                    going.append((text, answer))
            while going:
                count = len(going)
                while not _rows_within([answer for _, answer in going[:count]], limit_tokens):
                    count -= 1
                places = [plan.places[text] for text, _ in going[:count]]
                cells = torch.from_numpy(pad([place.cells for place in places], side="right"))
                yield _Begun(
                    answers=[answer for _, answer in going[:count]],
                    states=trunk.paths(places[0].past, cells.to(self._device)),
                    lengths=[place.past + len(place.cells) for place in places],
                )
                going = going[count:]

    def _step(self, active: list[_Answer], cache: AnswerCache) -> None:
        """Add one token to every answer, and remove the answers that end with it."""
        last = torch.tensor([answer.tokens[-1] for answer in active], device=self._device)
        logits = run_step(self._forward, last, cache, device=self._device, dtype=self._dtype)
        seen = None
        if self._choice.penalised:
            for answer, token in zip(active, last.tolist(), strict=True):
                assert answer.seen is not None
                answer.seen[token] = True
            seen = torch.stack([answer.seen for answer in active if answer.seen is not None])
        tokens = self._choice.best(logits, seen).tolist()
        ended = set()
        for row, answer in enumerate(active):
            answer.tokens.append(tokens[row])
            if self._choice.ended(answer.tokens, answer.request):
                ended.add(row)
        for source, target in cache.remove(ended):
            active[target] = active[source]
        del active[len(active) - len(ended) :]

    def _seen(self, prompts: Sequence[Tokens]) -> torch.Tensor | None:
        """Tokens of each prompt, (prompts, vocabulary); None without a repetition penalty."""
        if not self._choice.penalised:
            return None
        seen = torch.zeros((len(prompts), self._choice.vocabulary), dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            seen[row, torch.from_numpy(prompt)] = True
        return seen.to(self._device)


def _rows_within(answers: Sequence[_Answer], limit_tokens: int) -> bool:
    """Whether these rows, each as long as the longest may get, fit the limit; a single one does."""
    return len(answers) < 2 or (
        len(answers) * max(answer.longest for answer in answers) <= limit_tokens
    )
