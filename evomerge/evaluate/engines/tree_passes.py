"""Runs the passes of a plan over a tree of texts on a model, each shared token once.

A mask of ancestors keeps the texts of a row apart, positions say how deep in its text each token
is, and a cache holds the trunk. Keys and values live as long as one run: no weight ever changes
under them. It does not know what the logits are for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from evomerge.evaluate.engines.decoding import Forward
from evomerge.evaluate.engines.key_values import AnswerCache, TrunkCache
from evomerge.evaluate.engines.token_tree import Integers, Pass, Plan

RunPass = Callable[[Pass, TrunkCache, torch.Tensor], torch.Tensor]
"""Runs a pass: logits (rows, columns wanted, vocabulary) at the given columns."""


def run_pass(
    forward: Forward,
    each: Pass,
    cache: TrunkCache,
    columns: torch.Tensor,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Logits (rows, columns wanted, vocabulary) of one pass; dtype: of the mask, the model's."""
    return forward(
        torch.from_numpy(each.ids).to(device),
        keep=columns,
        use_cache=True,
        past_key_values=cache,
        position_ids=torch.from_numpy(each.depths).to(device),
        attention_mask=None if each.is_chain else _mask(each, device=device, dtype=dtype),
    )


def run_passes(
    plan: Plan, wanted: Mapping[int, Integers], run: RunPass, *, device: torch.device
) -> Iterator[tuple[int, torch.Tensor, TrunkCache]]:
    """Number of each pass, its logits (cells, vocabulary) at the wanted cells, and its cache.

    wanted: by pass, the numbers of cells, row by row; a pass may have none. The cache holds what
    the pass left until the next one is asked for.
    """
    cache = TrunkCache()
    for number, each in enumerate(plan.passes):
        cells = wanted.get(number, np.zeros(0, dtype=np.int64))
        width = each.ids.shape[1]
        # A model gives the same columns of all rows; the last one stands for none.
        columns, places = np.unique(cells % width, return_inverse=True)
        kept = torch.from_numpy(columns if len(columns) else np.array([width - 1])).to(device)
        cache.length = each.past
        logits = run(each, cache, kept)
        rows = torch.from_numpy(cells // width).to(device)
        yield number, logits[rows, torch.from_numpy(places).to(device)], cache
        if each.trunk:
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
        past_key_values=cache,
        position_ids=positions,
        attention_mask=mask[:, None, None],
    )[:, -1]


def _mask(each: Pass, *, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """(rows, 1, columns, past + columns), to be added: 0 where a cell sees another."""
    rows, columns = each.ids.shape
    ends = torch.from_numpy(each.ends).to(device)
    number = torch.arange(columns, device=device)
    seen = (number[:, None] >= number) & (number[:, None] < ends[:, None, :])
    mask = torch.zeros((rows, 1, columns, each.past + columns), dtype=dtype, device=device)
    mask[:, 0, :, each.past :].masked_fill_(~seen, torch.finfo(dtype).min)
    return mask
