"""Greedy decoding without fixed batches: when a row ends, the next prompt takes its place.

Prompts are read as one tree, so tokens that they share are read once. Every answer then has its own
row of keys and values. Answers are those of transformers' `generate` without sampling, run prompt
by prompt.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from evomerge.devices import upload
from evomerge.evaluate.engines.base import Prompt, Tokens
from evomerge.evaluate.engines.transformers.batching import pad
from evomerge.evaluate.engines.transformers.decoding import Forward, GreedyChoice, read_tokens
from evomerge.evaluate.engines.transformers.key_values import AnswerCache, States
from evomerge.evaluate.engines.transformers.token_tree import Plan
from evomerge.evaluate.engines.transformers.tree_passes import RunPass, run_passes, run_step


@dataclass(kw_only=True, eq=False)
class _Answer:
    """An answer that is being generated.

    tokens: those so far. longest: most tokens of the prompt and the answer together.
    """

    request: Prompt
    tokens: list[int]
    longest: int


@dataclass(frozen=True, kw_only=True, eq=False)
class _Begun:
    """Answers with a first token, and the states and lengths of their prompts.

    seen: (answers, vocabulary) which tokens prompts and answers hold, for a repetition penalty.
    """

    answers: Sequence[_Answer]
    states: States
    lengths: Sequence[int]
    seen: torch.Tensor | None


class _Rows:
    """Answers that grow at the same time, a row each; the rest as of `_Begun`."""

    def __init__(self, *, device: torch.device) -> None:
        self.answers: list[_Answer] = []
        self.cache = AnswerCache(device=device)
        self.seen: torch.Tensor | None = None
        self._device = device

    def add(self, begun: _Begun) -> None:
        """Add rows at the end."""
        room = max(answer.longest for answer in begun.answers)
        self.cache.add(begun.states, begun.lengths, room=room)
        self.answers += begun.answers
        if begun.seen is not None:
            parts = [begun.seen] if self.seen is None else [self.seen, begun.seen]
            self.seen = torch.cat(parts)

    def remove(self, rows: Collection[int]) -> None:
        """Remove rows; rows from the end take their places."""
        if not rows:
            return
        moves = self.cache.remove(rows)
        for source, target in moves:
            self.answers[target] = self.answers[source]
        del self.answers[len(self.answers) - len(rows) :]
        if self.seen is not None:
            if moves:
                sources, targets = upload(np.array(moves).T.copy(), self._device)
                self.seen[targets] = self.seen[sources]
            self.seen = self.seen[: len(self.answers)]


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
        active = _Rows(device=self._device)
        while upcoming is not None or active.answers:
            while upcoming is not None and (
                not active.answers
                or _rows_within([*active.answers, *upcoming.answers], limit_tokens)
            ):
                active.add(upcoming)
                upcoming = next(begun, None)
            self._step(active)
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
            best = self._choice.best(logits, seen)
            tokens = read_tokens(best)
            if seen is not None:
                seen.scatter_(1, best[:, None], True)
            going: list[tuple[int, _Answer]] = []
            for row, text in enumerate(texts):
                for index in owners[text]:
                    answers[index].append(tokens[row])
                    if self._choice.ended(answers[index], requests[index]):
                        continue
                    answer = _Answer(
                        request=requests[index],
                        tokens=answers[index],
                        longest=len(prompts[text]) + requests[index].limit_tokens,
                    )
                    going.append((row, answer))
            while going:
                count = len(going)
                while not _rows_within([answer for _, answer in going[:count]], limit_tokens):
                    count -= 1
                rows = [row for row, _ in going[:count]]
                places = [plan.places[texts[row]] for row in rows]
                cells = upload(pad([place.cells for place in places], side="right"), self._device)
                yield _Begun(
                    answers=[answer for _, answer in going[:count]],
                    states=trunk.paths(places[0].past, cells),
                    lengths=[place.past + len(place.cells) for place in places],
                    seen=None if seen is None else seen[upload(np.array(rows), self._device)],
                )
                going = going[count:]

    def _step(self, active: _Rows) -> None:
        """Add one token to every answer, and remove the answers that end with it."""
        last = [answer.tokens[-1] for answer in active.answers]
        logits = run_step(self._forward, last, active.cache, device=self._device, dtype=self._dtype)
        best = self._choice.best(logits, active.seen)
        tokens = read_tokens(best)
        if active.seen is not None:
            active.seen.scatter_(1, best[:, None], True)
        ended = set()
        for row, answer in enumerate(active.answers):
            answer.tokens.append(tokens[row])
            if self._choice.ended(answer.tokens, answer.request):
                ended.add(row)
        active.remove(ended)

    def _seen(self, prompts: Sequence[Tokens]) -> torch.Tensor | None:
        """Tokens of each prompt, (prompts, vocabulary); None without a repetition penalty."""
        if not self._choice.penalised:
            return None
        seen = np.zeros((len(prompts), self._choice.vocabulary), dtype=bool)
        for row, prompt in enumerate(prompts):
            seen[row, prompt] = True
        return upload(seen, self._device)


def _rows_within(answers: Sequence[_Answer], limit_tokens: int) -> bool:
    """Whether these rows, each as long as the longest may get, fit the limit; a single one does."""
    return len(answers) < 2 or (
        len(answers) * max(answer.longest for answer in answers) <= limit_tokens
    )
