"""Whether a model may read texts as a tree: known obstacles, and a trial with random weights.

A mask of ancestors is exact where a token's past is the keys and values that its mask shows, and
its place is what position ids say. State-space models carry a state that no mask parts, and some
models take places or windows from where a token lies in a row. And a last layer or a head may do
more with its cells than one by one. What is known to be so is read off the configuration; the trial
compares both ways for everything else, before any weights are loaded, so that what is decided
depends on the architecture alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from evomerge.evaluate.engines.base import Tokens
from evomerge.evaluate.engines.batching import pad
from evomerge.evaluate.engines.decoding import Forward
from evomerge.evaluate.engines.key_values import AnswerCache
from evomerge.evaluate.engines.token_tree import Limits, plan_passes
from evomerge.evaluate.engines.tree_passes import ForwardCells, run_pass, run_passes, run_step

_NEEDED = frozenset({"attention_mask", "position_ids", "past_key_values"})
_KNOWN_LAYERS = frozenset({"full_attention", "sliding_attention"})
_WINDOWS = ("window", "window_size", "chunk_size")

_AGREEMENT = {torch.float32: 1e-4}
_COARSE_AGREEMENT = 0.07
"""The largest root mean square difference of a token's logits, in deviations of its logits.

Rounding makes 1e-6 in float32, and up to 0.035 in bfloat16 at any depth; a wrong mask or place
makes 0.12 or more (twelve architectures, both mistakes made by hand).
"""

_TRIED_TOKENS = 32
"""At least as many as the trial lays into one row with its trunk."""

_STEPS = 2
"""Tokens that the trial adds one by one, as answers grow."""

_TRIALS = ((4, 10, 3), (100, 10, 1), (100, 1, 1))
"""Shortest trunk, tokens of a row, and in how many turns the logits of all cells are asked for.

After a trunk, in one row, and a text a row. A third of the cells at a time is few enough that the
others are left out.
"""

_NOISE = 1_000_003
"""Random numbers to fill all parameters with; a prime, so that rows of weights differ."""


def longest_packed(config: PreTrainedConfig, accepted: frozenset[str]) -> int | None:
    """Tokens of a row, its trunk counted, up to which it may be packed; None without a limit.

    0 where it never may. accepted: names of what the model's forward pass takes. Windows, and
    frequencies that change with the length, do so at a number that the configuration gives.
    """
    text = config.get_text_config(decoder=True)
    kinds = frozenset(getattr(text, "layer_types", None) or ())
    if (_NEEDED - accepted) or (kinds - _KNOWN_LAYERS):
        return 0
    settings = text.to_dict()
    limits = [
        value
        for name, value in settings.items()
        if name.endswith(_WINDOWS) and isinstance(value, int) and value > 0
    ]
    rope = settings.get("rope_parameters") or {}
    for each in (rope, *(part for part in rope.values() if isinstance(part, dict))):
        if each.get("rope_type") == "longrope":
            limits.append(int(each.get("original_max_position_embeddings") or 0))
    longest = min(limits, default=None)
    return longest if longest is None or longest >= _TRIED_TOKENS else 0


def packs_exactly(
    model: PreTrainedModel, forward: Forward, forward_cells: ForwardCells, *, device: torch.device
) -> bool:
    """Whether a tree of random texts gets the logits that each text gets by itself.

    Also where only some of a pass's logits are asked for and `WantedCells` leaves out the rest.
    Overwrites the model's parameters, which must not have been loaded yet. The global random state
    is left alone.
    """
    _randomise(model)
    vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
    generator = np.random.default_rng(0)

    def draw(count: int) -> Tokens:
        return generator.integers(vocabulary // 8, vocabulary, size=count)

    trunk, branch = draw(7), draw(3)
    ends = [draw(0), branch, np.append(branch, draw(2)), np.append(branch, draw(4)), draw(5)]
    texts = [np.append(trunk, end) for end in ends] + [draw(4), draw(9)]
    try:
        with torch.inference_mode():
            plain = [
                forward(torch.from_numpy(text)[None].to(device), keep=len(text), use_cache=False)[0]
                for text in texts
            ]
            return all(
                _agree(found, expected[len(expected) - len(found) :])
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
                _agree(found, expected[-_STEPS:])
                for found, expected in zip(
                    _step_logits(model, forward, forward_cells, texts, device=device),
                    plain,
                    strict=True,
                )
            )
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError):
        return False  # Each architecture has its own way to say what it does not take.


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


def _agree(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether logits (tokens, vocabulary) differ by rounding alone."""
    limit = _AGREEMENT.get(found.dtype, _COARSE_AGREEMENT)
    found, expected = found.double(), expected.double()
    # Two logits of one token differ by this much where they know nothing of each other.
    deviation = expected.std(dim=-1).mean()
    difference = (found - expected).square().mean(dim=-1).sqrt().max()
    return bool(difference <= limit * deviation)


def _randomise(model: PreTrainedModel) -> None:
    """Weights that make attention look at some tokens more than at others, in every layer."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(_NOISE, generator=generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            flat = parameter.detach().view(-1)
            if parameter.ndim > 1:
                values = noise * 1.5 / math.sqrt(parameter.shape[-1])
            else:
                values = 0.2 * noise if name.endswith("bias") else 0.8 + 0.2 * noise
            values = values.to(dtype=flat.dtype, device=flat.device)
            for start in range(0, len(flat), _NOISE):
                flat[start : start + _NOISE] = values[: len(flat) - start]
