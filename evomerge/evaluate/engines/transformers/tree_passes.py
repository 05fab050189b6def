"""Runs the passes of a plan over a tree of texts on a model, each shared token once.

A mask of ancestors keeps the texts of a row apart, positions say how deep in its text each token
is, and a cache holds the trunk. Keys and values are kept for one run only, so weights never change
while they exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch

from evomerge.evaluate.engines.base import Continuation, LogLikelihood
from evomerge.evaluate.engines.transformers.decoding import Forward
from evomerge.evaluate.engines.transformers.key_values import AnswerCache, TrunkCache
from evomerge.evaluate.engines.transformers.scoring import Scores
from evomerge.evaluate.engines.transformers.token_tree import Integers, Pass, Plan

RunPass = Callable[[Pass, TrunkCache, torch.Tensor], torch.Tensor]
"""Runs a pass: logits (cells wanted, vocabulary) of the cells with these numbers, row by row."""


class ForwardCells(Protocol):
    """A forward pass: ids (rows, columns) to logits (wanted, vocabulary) of some cells."""

    def __call__(
        self, ids: torch.Tensor, *, cells: torch.Tensor, **options: object
    ) -> torch.Tensor:
        """Run it; cells: (wanted,) by number, row by row. `options` are the model's arguments."""


def run_pass(
    forward: ForwardCells,
    tree_pass: Pass,
    cache: TrunkCache,
    cells: torch.Tensor,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Logits (cells wanted, vocabulary) of one pass; dtype: of the mask, the model's."""
    return forward(
        torch.from_numpy(tree_pass.ids).to(device),
        cells=cells,
        use_cache=True,
        past=cache,
        position_ids=torch.from_numpy(tree_pass.depths).to(device),
        attention_mask=None if tree_pass.causal else _mask(tree_pass, device=device, dtype=dtype),
    )


def run_passes(
    plan: Plan, wanted: Mapping[int, Integers], run: RunPass, *, device: torch.device
) -> Iterator[tuple[int, torch.Tensor, TrunkCache]]:
    """Number of each pass, its logits (cells, vocabulary) at the wanted cells, and its cache.

    wanted: pass -> the numbers of cells, row by row; a pass may have none. The cache holds the
    states of a pass until the next one runs.
    """
    cache = TrunkCache()
    for number, tree_pass in enumerate(plan.passes):
        cells = wanted.get(number, np.zeros(0, dtype=np.int64))
        # A model always gives some logits, so the last cell is requested if none is wanted.
        requested = cells if len(cells) else np.array([tree_pass.ids.size - 1])
        cache.length = tree_pass.past
        logits = run(tree_pass, cache, torch.from_numpy(requested).to(device))
        yield number, logits[: len(cells)], cache
        if tree_pass.trunk:
            cache.grow()


def run_step(
    forward: Forward,
    tokens: torch.Tensor,
    cache: AnswerCache,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Logits (rows, vocabulary) after one more token of every row of a cache; tokens: (rows,)."""
    positions = torch.tensor(cache.lengths, device=device)[:, None]  # (rows, 1)
    cache.begin_step()
    hidden = torch.arange(cache.longest, device=device) > positions  # (rows, longest)
    mask = torch.zeros(hidden.shape, dtype=dtype, device=device)
    mask.masked_fill_(hidden, torch.finfo(dtype).min)
    return forward(
        tokens[:, None],
        keep=1,
        use_cache=True,
        past=cache,
        position_ids=positions,
        attention_mask=mask[:, None, None],
    )[:, -1]


def _mask(tree_pass: Pass, *, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """(rows, 1, columns, past + columns), to be added: 0 if a cell sees another."""
    rows, columns = tree_pass.ids.shape
    ends = torch.from_numpy(tree_pass.ends).to(device)
    number = torch.arange(columns, device=device)
    seen = (number[:, None] >= number) & (number[:, None] < ends[:, None, :])
    mask = torch.zeros((rows, 1, columns, tree_pass.past + columns), dtype=dtype, device=device)
    mask[:, 0, :, tree_pass.past :].masked_fill_(~seen, torch.finfo(dtype).min)
    return mask


# Log-likelihoods of many requests from the passes over the tree of their texts.


def score_tree(
    requests: Sequence[Continuation],
    owners: Sequence[Sequence[int]],
    plan: Plan,
    run: RunPass,
    *,
    device: torch.device,
) -> list[LogLikelihood]:
    """One answer a request, in order; owners: the requests that each text of the plan answers.

    Raises NonFiniteLogits.
    """
    scores = Scores(requests)
    found: dict[int, list[tuple[Integers, Integers]]] = {}  # pass -> cells, slots
    for place, indices in zip(plan.places, owners, strict=True):
        length = place.past + len(place.cells)
        for index in indices:
            count = requests[index].scored
            slots = scores.starts[index] + np.arange(count)
            own = min(count, len(place.cells))
            found.setdefault(place.last, []).append((place.cells[-own:], slots[count - own :]))
            for step in range(count - own):
                number, cell = place.find(length - count + step)
                found.setdefault(number, []).append((np.array([cell]), slots[step : step + 1]))
    cells = {n: np.concatenate([cells for cells, _ in parts]) for n, parts in found.items()}
    slots_of = {n: np.concatenate([slots for _, slots in parts]) for n, parts in found.items()}
    wanted: dict[int, Integers] = {}
    rows: dict[int, Integers] = {}
    for number, pass_cells in cells.items():
        wanted[number], rows[number] = np.unique(pass_cells, return_inverse=True)
    for number, logits, _ in run_passes(plan, wanted, run, device=device):
        if number in wanted:
            scores.take(logits, rows[number], slots_of[number])
    return scores.answers()
