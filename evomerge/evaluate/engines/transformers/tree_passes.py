"""Runs the passes of a plan over a tree of texts on a model, each shared token once.

A mask of ancestors keeps the texts of a row apart, positions say how deep in its text each token
is, and a cache holds the trunk. Keys and values are kept for one run only, so weights never change
while they exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from evomerge.devices import upload
from evomerge.evaluate.engines.base import Continuation, LogLikelihood
from evomerge.evaluate.engines.transformers.decoding import Forward
from evomerge.evaluate.engines.transformers.key_values import AnswerCache, TrunkCache
from evomerge.evaluate.engines.transformers.scoring import Scores
from evomerge.evaluate.engines.transformers.token_tree import Integers, Pass, Plan


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedPass:
    """A pass with its numbers on the device.

    ids, depths, ends: (rows, columns), see Pass; ends: None for a causal pass. cells: (wanted,)
    numbers of the cells with logits that are wanted, row by row.
    """

    tree_pass: Pass
    ids: torch.Tensor
    depths: torch.Tensor
    ends: torch.Tensor | None
    cells: torch.Tensor


RunPass = Callable[[PlacedPass, TrunkCache], torch.Tensor]
"""Runs a pass: logits (cells wanted, vocabulary)."""


class ForwardCells(Protocol):
    """A forward pass: ids (rows, columns) to logits (wanted, vocabulary) of some cells."""

    def __call__(
        self, ids: torch.Tensor, *, cells: torch.Tensor, **options: object
    ) -> torch.Tensor:
        """Run it; cells: (wanted,) by number, row by row. `options` are the model's arguments."""


def run_pass(
    forward: ForwardCells, placed: PlacedPass, cache: TrunkCache, *, dtype: torch.dtype
) -> torch.Tensor:
    """Logits (cells wanted, vocabulary) of one pass; dtype: of the mask, the model's."""
    return forward(
        placed.ids,
        cells=placed.cells,
        use_cache=True,
        past=cache,
        position_ids=placed.depths,
        attention_mask=_mask(placed.ends, past=placed.tree_pass.past, dtype=dtype),
    )


def run_passes(
    plan: Plan, wanted: Mapping[int, Integers], run: RunPass, *, device: torch.device
) -> Iterator[tuple[int, torch.Tensor, TrunkCache]]:
    """Number of each pass, its logits (cells, vocabulary) at the wanted cells, and its cache.

    wanted: pass -> the numbers of cells, row by row; a pass may have none. The cache holds the
    states of a pass until the next one runs.
    """
    cache = TrunkCache()
    for number, placed in enumerate(_placed(plan, wanted, device)):
        cache.length = placed.tree_pass.past
        logits = run(placed, cache)
        yield number, logits[: len(wanted.get(number, ()))], cache
        if placed.tree_pass.trunk:
            cache.grow()


def _placed(
    plan: Plan, wanted: Mapping[int, Integers], device: torch.device
) -> Iterator[PlacedPass]:
    """The passes of a plan, all in one copy to the device."""
    arrays: list[Integers] = []
    for number, tree_pass in enumerate(plan.passes):
        cells = wanted.get(number, np.zeros(0, dtype=np.int64))
        # A model always gives some logits, so the last cell is requested if none is wanted.
        requested = cells if len(cells) else np.array([tree_pass.ids.size - 1])
        ends = np.zeros(0, dtype=np.int64) if tree_pass.causal else tree_pass.ends
        arrays += [tree_pass.ids, tree_pass.depths, ends, requested]
    numbers = upload(np.concatenate([array.reshape(-1) for array in arrays]), device)
    parts = iter(numbers.split([array.size for array in arrays]))  # type: ignore[no-untyped-call]
    for tree_pass in plan.passes:
        ids, depths, ends_there, there = (next(parts) for _ in range(4))
        shape = tree_pass.ids.shape
        yield PlacedPass(
            tree_pass=tree_pass,
            ids=ids.view(shape),
            depths=depths.view(shape),
            ends=None if tree_pass.causal else ends_there.view(shape),
            cells=there,
        )


def run_step(
    forward: Forward,
    tokens: Sequence[int],
    cache: AnswerCache,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Logits (rows, vocabulary) after one more token of every row of a cache; tokens: (rows,)."""
    ids, ends = upload(np.array([tokens, cache.lengths], dtype=np.int64), device)
    cache.begin_step(ends)
    positions = ends[:, None]  # (rows, 1)
    hidden = torch.arange(cache.longest, device=device) > positions  # (rows, longest)
    mask = torch.zeros(hidden.shape, dtype=dtype, device=device)
    mask.masked_fill_(hidden, torch.finfo(dtype).min)
    return forward(
        ids[:, None],
        keep=1,
        use_cache=True,
        past=cache,
        position_ids=positions,
        attention_mask=mask[:, None, None],
    )[:, -1]


def _mask(ends: torch.Tensor | None, *, past: int, dtype: torch.dtype) -> torch.Tensor | None:
    """(rows, 1, columns, past + columns), to be added: 0 if a cell sees another.

    None for a causal pass.
    """
    if ends is None:
        return None
    rows, columns = ends.shape
    number = torch.arange(columns, device=ends.device)
    seen = (number[:, None] >= number) & (number[:, None] < ends[:, None, :])
    mask = torch.zeros((rows, 1, columns, past + columns), dtype=dtype, device=ends.device)
    mask[:, 0, :, past:].masked_fill_(~seen, torch.finfo(dtype).min)
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
    of_passes = dict(
        zip(
            wanted,
            scores.placed([*rows.values()], [*slots_of.values()], device=device),
            strict=True,
        )
    )
    for number, logits, _ in run_passes(plan, wanted, run, device=device):
        if number in wanted:
            scores.take(logits, of_passes[number])
    return scores.answers()
