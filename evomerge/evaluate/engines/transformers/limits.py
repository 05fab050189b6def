"""Finds by trials what a model reads exactly: texts as a tree, and rows in one batch.

A mask of ancestors is exact if two things hold: the past of a token is the keys and values that its
mask shows, and position ids give its place. State-space models carry a state that no mask takes
apart. Some models derive places or windows from the position of a token in its row. And a last
layer or a head may not treat its cells one by one. What the configuration tells is read from it.
For everything else a trial with random weights compares both ways, before any weights are loaded,
so the decision depends on the architecture alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedConfig, PreTrainedModel

from evomerge.errors import SourceError, one_line
from evomerge.evaluate.engines.base import Prompt, Tokens
from evomerge.evaluate.engines.transformers.batching import pad
from evomerge.evaluate.engines.transformers.decoding import Forward, Rows
from evomerge.evaluate.engines.transformers.forward_options import (
    ForwardOptions,
    RandomTexts,
    agree,
    succeeds,
)
from evomerge.evaluate.engines.transformers.key_values import AnswerCache
from evomerge.evaluate.engines.transformers.plain import plain_answer, plain_logits
from evomerge.evaluate.engines.transformers.scoring import RunPadded
from evomerge.evaluate.engines.transformers.token_tree import Limits, plan_passes
from evomerge.evaluate.engines.transformers.tree_passes import (
    ForwardCells,
    run_pass,
    run_passes,
    run_step,
)

_NEEDED = ("attention_mask", "position_ids", "past")
_KNOWN_LAYERS = frozenset({"full_attention", "sliding_attention"})
_WINDOWS = ("window", "window_size", "chunk_size")

_TRIED_TOKENS = 32
"""At least as many as the trial puts into one row, with its trunk."""

_STEPS = 2
"""Tokens that the trial adds one by one, as in a growing answer."""

_TRIALS = ((4, 10, 3), (100, 10, 1), (100, 1, 1))
"""Shortest trunk, tokens of a row, and the number of turns that all logits are computed in.

The trials are: after a trunk, all texts in one row, and one text in a row. With a third of the
cells at a time, `LogitSelection` leaves out the others.
"""


def longest_packed(config: PreTrainedConfig, options: ForwardOptions) -> int | None:
    """Most tokens of a packed row, with its trunk; None without a limit, 0 if it may not be packed.

    options: what the model's forward pass takes. Sliding windows, and frequencies that change with
    the length, set the limit; the configuration gives both.
    """
    text = config.get_text_config(decoder=True)
    kinds = frozenset(getattr(text, "layer_types", None) or ())
    if not options.takes(*_NEEDED) or (kinds - _KNOWN_LAYERS):
        return 0
    settings = text.to_dict()
    limits = [
        value
        for name, value in settings.items()
        if name.endswith(_WINDOWS) and isinstance(value, int) and value > 0
    ]
    longest = min((*limits, *frequency_limits(settings)), default=None)
    return longest if longest is None or longest >= _TRIED_TOKENS else 0


def frequency_limits(settings: Mapping[str, Any]) -> list[int]:
    """Lengths beyond which a model reads every token of a pass with other rotary frequencies."""
    rope = settings.get("rope_parameters") or {}
    return [
        int(section.get("original_max_position_embeddings") or 0)
        for section in (rope, *(part for part in rope.values() if isinstance(part, dict)))
        if section.get("rope_type") == "longrope"
    ]


def packs_exactly(
    model: PreTrainedModel, forward: Forward, forward_cells: ForwardCells, *, device: torch.device
) -> bool:
    """Whether a tree of random texts gets the logits that each text gets by itself.

    This includes passes in which only some logits are wanted and `LogitSelection` leaves out the
    rest. model: with random weights.
    """
    draw = RandomTexts(model).draw
    trunk, branch = draw(7), draw(3)
    ends = [draw(0), branch, np.append(branch, draw(2)), np.append(branch, draw(4)), draw(5)]
    texts = [np.append(trunk, end) for end in ends] + [draw(4), draw(9)]

    def trial() -> bool:
        plain = [plain_logits(model, torch.from_numpy(text).to(device)) for text in texts]
        return all(
            agree(found, expected[len(expected) - len(found) :])
            for shortest, row_tokens, turns in _TRIALS
            for found, expected in zip(
                _tree_logits(
                    model,
                    forward_cells,
                    texts,
                    device=device,
                    shortest=shortest,
                    row_tokens=row_tokens,
                    turns=turns,
                ),
                plain,
                strict=True,
            )
        ) and all(
            agree(found, expected[-_STEPS:])
            for found, expected in zip(
                _step_logits(model, forward, forward_cells, texts, device=device),
                plain,
                strict=True,
            )
        )

    return succeeds(trial)


def _tree_logits(
    model: PreTrainedModel,
    forward: ForwardCells,
    texts: Sequence[Tokens],
    *,
    device: torch.device,
    shortest: int,
    row_tokens: int,
    turns: int,
) -> list[torch.Tensor]:
    """Logits (length, vocabulary) of every token of each text."""
    plan = plan_passes(texts, _limits(row_tokens), shortest=shortest)
    run = partial(run_pass, forward, dtype=model.dtype)
    logits: dict[tuple[int, int], torch.Tensor] = {}
    for turn in range(turns):
        wanted = {n: np.arange(turn, each.ids.size, turns) for n, each in enumerate(plan.passes)}
        for number, found, _ in run_passes(plan, wanted, run, device=device):
            cells = wanted[number].tolist()
            logits |= {(number, cell): each for cell, each in zip(cells, found, strict=True)}
    return [
        torch.stack([logits[place.find(depth)] for depth in range(len(text))])
        for text, place in zip(texts, plan.places, strict=True)
    ]


def _step_logits(
    model: PreTrainedModel,
    forward: Forward,
    forward_cells: ForwardCells,
    texts: Sequence[Tokens],
    *,
    device: torch.device,
) -> list[torch.Tensor]:
    """Logits (_STEPS, vocabulary) of the last tokens of each text, which are given one by one."""
    plan = plan_passes([text[:-_STEPS] for text in texts], _limits(10), shortest=4)
    run = partial(run_pass, forward_cells, dtype=model.dtype)
    cache = AnswerCache(device=device)
    order: list[int] = []
    for number, _, trunk in run_passes(plan, {}, run, device=device):
        texts_here = plan.passes[number].texts
        if texts_here:
            places = [plan.places[text] for text in texts_here]
            cells = torch.from_numpy(pad([place.cells for place in places], side="right"))
            states = trunk.paths(places[0].past, cells.to(device))
            lengths = [place.past + len(place.cells) for place in places]
            cache.add(states, lengths, room=max(lengths) + _STEPS)
            order += texts_here
    steps = []
    for step in range(_STEPS):
        tokens = [int(texts[text][step - _STEPS]) for text in order]
        steps.append(run_step(forward, tokens, cache, device=device, dtype=model.dtype))
    found = torch.stack(steps, dim=1)  # (rows, steps, vocabulary)
    return [found[order.index(text)] for text in range(len(texts))]


def _limits(row_tokens: int) -> Limits:
    return Limits(pass_tokens=20, row_tokens=row_tokens, packed_tokens=row_tokens)


# Which rows a model reads in one batch as it reads each alone: trials with random weights find it.
#
# A text that is scored is padded on the right, a prompt on the left. The cache of a prompt grows
# token by token, and a row leaves it when its answer ends. Models with a state, with convolutions,
# or with attention that looks ahead may be wrong in any of these. Such a model gets rows of one
# length, or one row at a time as in plain transformers.


_TEXTS = (14, 3, 9, 9, 14)
"""Tokens of the texts that are scored; some are shorter than a convolution is wide."""

_ANSWERS = ((7, 4), (2, 2), (7, 1), (11, 3))
"""Tokens of the prompts, and of their answers, which end at different steps."""

_SKIPPED = 2
"""The first places of a batch; their logits are not computed."""

Answer = Callable[[Sequence[Tokens], Sequence[Prompt], "Script", Rows], object]
"""Answers prompts in one batch of such rows, with the tokens of the script."""


@dataclass(frozen=True, kw_only=True)
class RowLimits:
    """Which rows a model reads in one batch, for scoring and for answers.

    answered: None for a model that cannot generate in transformers. longest: most tokens of rows
    that may differ in length; None without a limit.
    """

    scored: Rows
    answered: Rows | None
    longest: int | None

    def of(self, longest: int, *, generation: bool) -> Rows:
        """Which rows a batch may have; longest: most tokens that one of them may reach."""
        rows = self.answered if generation else self.scored
        assert rows is not None
        mixed = self.longest is None or longest <= self.longest
        return rows if mixed or rows is Rows.SINGLE else Rows.EQUAL


def try_rows(
    model: PreTrainedModel, score: RunPadded, answer: Answer, *, device: torch.device
) -> RowLimits:
    """The least strict kind of rows in which each row gets the logits that it gets alone.

    model: with random weights.
    """
    settings = model.config.get_text_config(decoder=True).to_dict()
    return RowLimits(
        scored=_try_scores(model, score, device=device),
        answered=_try_answers(model, answer, device=device),
        longest=min(frequency_limits(settings), default=None),
    )


def check_alone(
    model: PreTrainedModel, score: RunPadded, options: ForwardOptions, *, device: torch.device
) -> None:
    """Check that `score` gives the last logits of a text, if necessary by computing all of them.

    Raises SourceError for a model that does not read text alone, or gives other logits the second
    time.
    """
    text = RandomTexts(model).draw(_TEXTS[0])
    try:
        plain = plain_logits(model, torch.from_numpy(text).to(device))[_SKIPPED:]
    except Exception as error:  # architectures raise different errors for missing inputs
        raise _unreadable(model, one_line(f"{type(error).__name__}: {error}")) from error

    def trial() -> bool:
        return agree(score(text[None], keep=len(plain))[0], plain)

    if succeeds(trial):
        return
    options.leave_out("logits_to_keep")
    if not succeeds(trial) and bool(torch.isfinite(plain).all()):
        raise _unreadable(model, "the same text gets other logits the second time")


def _unreadable(model: PreTrainedModel, reason: str) -> SourceError:
    return SourceError(
        f"{type(model).__name__} cannot be scored on text alone ({reason}); `evomerge merge` "
        "merges such models without scoring them"
    )


def _try_scores(model: PreTrainedModel, score: RunPadded, *, device: torch.device) -> Rows:
    draw = RandomTexts(model).draw
    texts = [draw(count) for count in _TEXTS]

    def trial(batch: Sequence[Tokens]) -> bool:
        padded: NDArray[np.int64] = pad(batch, side="right")
        logits = score(padded, keep=padded.shape[1] - _SKIPPED)
        return all(
            agree(
                row[: len(text) - _SKIPPED],
                plain_logits(model, torch.from_numpy(text).to(device))[_SKIPPED:],
            )
            for row, text in zip(logits, batch, strict=True)
        )

    if succeeds(lambda: trial(texts)):
        return Rows.PADDED
    of_one_length = [text for text in texts if len(text) == len(texts[0])]
    return Rows.EQUAL if succeeds(lambda: trial(of_one_length)) else Rows.SINGLE


def _try_answers(model: PreTrainedModel, answer: Answer, *, device: torch.device) -> Rows | None:
    draw = RandomTexts(model).draw
    prompts = [draw(count) for count, _ in _ANSWERS]
    answers = [draw(count) for _, count in _ANSWERS]
    requests = [
        Prompt(tokens=prompt, stop=(), limit_tokens=len(tokens))
        for prompt, tokens in zip(prompts, answers, strict=True)
    ]

    def alone(number: int) -> torch.Tensor:
        script = Script([answers[number]])
        request = requests[number]
        context = len(request.tokens) + request.limit_tokens
        plain_answer(model, request, script, context_tokens=context)
        return script.logits(0)

    def trial(rows: Rows) -> bool:
        numbers = [
            number
            for number, prompt in enumerate(prompts)
            if rows is not Rows.EQUAL or len(prompt) == len(prompts[0])
        ]
        script = Script([answers[n] for n in numbers])
        answer([prompts[n] for n in numbers], [requests[n] for n in numbers], script, rows)
        return all(agree(script.logits(row), alone(n)) for row, n in enumerate(numbers))

    for rows in (Rows.PADDED, Rows.PADDED_AT_FIRST, Rows.EQUAL):
        if succeeds(partial(trial, rows)):
            return rows
    return Rows.SINGLE if succeeds(lambda: len(alone(0)) > 0) else None


class Script:
    """Chooses tokens that were given before, and keeps the logits that it gets."""

    penalised = False
    vocabulary = 0

    def __init__(self, answers: Sequence[Tokens]) -> None:
        self._answers = answers
        self._logits: list[list[torch.Tensor]] = [[] for _ in answers]

    def best(self, logits: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """The next token of each answer that has not ended."""
        going = [n for n, answer in enumerate(self._answers) if len(self._logits[n]) < len(answer)]
        tokens = [int(self._answers[n][len(self._logits[n])]) for n in going]
        for number, row in zip(going, logits, strict=True):
            self._logits[number].append(row)
        return torch.tensor(tokens, device=logits.device)

    def ended(self, answer: Sequence[int], request: Prompt) -> bool:
        """Whether the answer is as long as it may get."""
        return len(answer) >= request.limit_tokens

    def logits(self, number: int) -> torch.Tensor:
        """(tokens, vocabulary) before each token of an answer."""
        return torch.stack(self._logits[number])
