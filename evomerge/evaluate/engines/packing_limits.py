"""Whether a model may read texts as a tree: known obstacles, and a trial with random weights.

A mask of ancestors is exact where a token's past is the keys and values that its mask shows, and
its place is what position ids say. State-space models carry a state that no mask parts, and some
models take places or windows from where a token lies in a row. And a last layer or a head may do
more with its cells than one by one. What is known to be so is read off the configuration; the trial
compares both ways for everything else, before any weights are loaded, so that what is decided
depends on the architecture alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from evomerge.evaluate.engines.base import Tokens
from evomerge.evaluate.engines.batching import pad
from evomerge.evaluate.engines.decoding import Forward
from evomerge.evaluate.engines.forward_options import ForwardOptions
from evomerge.evaluate.engines.key_values import AnswerCache
from evomerge.evaluate.engines.plain import plain_logits
from evomerge.evaluate.engines.random_trial import RandomTexts, agree, succeeds
from evomerge.evaluate.engines.token_tree import Limits, plan_passes
from evomerge.evaluate.engines.tree_passes import ForwardCells, run_pass, run_passes, run_step

_NEEDED = ("attention_mask", "position_ids", "past")
_KNOWN_LAYERS = frozenset({"full_attention", "sliding_attention"})
_WINDOWS = ("window", "window_size", "chunk_size")

_TRIED_TOKENS = 32
"""At least as many as the trial lays into one row with its trunk."""

_STEPS = 2
"""Tokens that the trial adds one by one, as answers grow."""

_TRIALS = ((4, 10, 3), (100, 10, 1), (100, 1, 1))
"""Shortest trunk, tokens of a row, and in how many turns the logits of all cells are asked for.

After a trunk, in one row, and a text a row. A third of the cells at a time is few enough that the
others are left out.
"""


def longest_packed(config: PreTrainedConfig, options: ForwardOptions) -> int | None:
    """Tokens of a row, its trunk counted, up to which it may be packed; None without a limit.

    0 where it never may. options: what the model's forward pass takes. Windows, and frequencies
    that change with the length, do so at a number that the configuration gives.
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
    """Lengths past which a model of these settings reads every token of a pass differently."""
    rope = settings.get("rope_parameters") or {}
    return [
        int(each.get("original_max_position_embeddings") or 0)
        for each in (rope, *(part for part in rope.values() if isinstance(part, dict)))
        if each.get("rope_type") == "longrope"
    ]


def packs_exactly(
    model: PreTrainedModel, forward: Forward, forward_cells: ForwardCells, *, device: torch.device
) -> bool:
    """Whether a tree of random texts gets the logits that each text gets by itself.

    Also where only some of a pass's logits are asked for and `WantedCells` leaves out the rest.
    model: with random weights.
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
    run = partial(run_pass, forward, device=device, dtype=model.dtype)
    logits: dict[tuple[int, int], torch.Tensor] = {}
    for turn in range(turns):
        asked = {n: np.arange(turn, each.ids.size, turns) for n, each in enumerate(plan.passes)}
        for number, found, _ in run_passes(plan, asked, run, device=device):
            cells = asked[number].tolist()
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
    """Logits (_STEPS, vocabulary) of the last tokens of each text, which come one by one."""
    plan = plan_passes([text[:-_STEPS] for text in texts], _limits(10), shortest=4)
    run = partial(run_pass, forward_cells, device=device, dtype=model.dtype)
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
        tokens = torch.tensor([int(texts[text][step - _STEPS]) for text in order], device=device)
        steps.append(run_step(forward, tokens, cache, device=device, dtype=model.dtype))
    found = torch.stack(steps, dim=1)  # (rows, steps, vocabulary)
    return [found[order.index(text)] for text in range(len(texts))]


def _limits(row_tokens: int) -> Limits:
    return Limits(pass_tokens=20, row_tokens=row_tokens, packed_tokens=row_tokens)
