"""How requests are cut into padded batches: by length, within a budget of tokens.

Batches depend on the requests and the budget alone, never on time or on other workers, so a
candidate's rounding errors are the same wherever it is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedConfig

from evomerge.evaluate.engines.base import Tokens
from evomerge.evaluate.engines.transformers.token_tree import Limits

CPU_SCORING_TOKENS = 512
"""Tokens of a batch on a CPU: enough to use its vector units, few enough to stay in its caches."""

CPU_GENERATION_TOKENS = 16384
"""Tokens of all answers that grow at the same time; a step processes one token of each."""

_SHORTEST_ROW, _LONGEST_ROW = 64, 1024

_PROBED_TOKENS = (1 << 17, 1 << 16, 1 << 15, 1 << 14, 1 << 13, 1 << 12, 1 << 11)
_PROBED_ROWS = 1024


def cut(
    lengths: Sequence[int],
    *,
    rows: int | None = None,
    tokens: int | None = None,
    kinds: Sequence[int] | None = None,
) -> list[tuple[int, int]]:
    """Ranges (start, stop) of consecutive requests, longest first, that make one batch each.

    lengths: (n,) padded length each request needs, descending. rows: requests of a batch, or
    tokens: rows times the longest length of a batch; a batch holds at least one request. kinds:
    (n,) numbers that all requests of a batch must have in common.
    """
    assert (rows is None) != (tokens is None)
    ranges = []
    start = 0
    while start < len(lengths):
        count = rows if rows is not None else max(1, (tokens or 0) // max(1, lengths[start]))
        stop = min(len(lengths), start + count)
        if kinds is not None:
            different = (place for place in range(start, stop) if kinds[place] != kinds[start])
            stop = next(different, stop)
        ranges.append((start, stop))
        start = stop
    return ranges


def tree_limits(config: PreTrainedConfig, *, pass_tokens: int) -> Limits:
    """How texts are put into rows and passes of so many tokens.

    Attention also computes what a mask hides. In a row as long as the hidden size, that costs at
    most a sixth of the linear layers' work. Texts that share nothing gain only less padding from a
    common row, so their rows are half as long.
    """
    hidden = int(config.get_text_config(decoder=True).hidden_size)
    row = min(pass_tokens, max(_SHORTEST_ROW, min(_LONGEST_ROW, hidden)))
    packed = min(row, max(_SHORTEST_ROW, row // 2))
    return Limits(pass_tokens=pass_tokens, row_tokens=row, packed_tokens=packed)


def pad(rows: Sequence[Tokens], *, side: Literal["left", "right"]) -> NDArray[np.int64]:
    """Rows of token ids as one array (rows, longest), zeros where a row is shorter."""
    longest = max(len(row) for row in rows)
    padded = np.zeros((len(rows), longest), dtype=np.int64)
    for index, row in enumerate(rows):
        if side == "left":
            padded[index, longest - len(row) :] = row
        else:
            padded[index, : len(row)] = row
    return padded


def probe_tokens(try_batch: Callable[[int], None], *, longest_tokens: int) -> int:
    """The largest token budget with a batch that fits in memory, halved for safety.

    try_batch: runs a batch of so many rows of `longest_tokens`; it may raise OutOfMemoryError. The
    other half is for the KV cache of generation and for fragmentation.
    """
    for tokens in _PROBED_TOKENS:
        rows = min(_PROBED_ROWS, tokens // longest_tokens)
        if rows < 2:
            break
        try:
            try_batch(rows)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            continue
        return rows * longest_tokens // 2
    return longest_tokens
