"""Rows of answers leave the cache together, and what stays is what was there."""

from __future__ import annotations

import pytest
import torch

from evomerge.evaluate.engines.transformers.key_values import AnswerCache

LENGTHS = [3, 1, 5, 2, 4, 5]


def cache_of(lengths: list[int]) -> AnswerCache:
    """Two layers of one head; the states of row n are all n."""
    rows = torch.arange(len(lengths), dtype=torch.float32)
    states = rows[:, None, None, None].expand(-1, 1, max(lengths), 2)
    cache = AnswerCache(device=torch.device("cpu"))
    cache.add([(states, states + 100)] * 2, lengths, room=8)
    return cache


@pytest.mark.parametrize(
    "gone", [set(), {0}, {5}, {0, 5}, {0, 1, 2}, {1, 3, 5}, {3, 4, 5}, set(range(6))]
)
def test_rows_that_stay_keep_their_states(gone: set[int]) -> None:
    cache = cache_of(LENGTHS)
    held = list(range(len(LENGTHS)))  # who is in each row
    for source, target in cache.remove(gone):
        held[target] = held[source]
    del held[len(LENGTHS) - len(gone) :]
    assert sorted(held) == sorted(set(range(len(LENGTHS))) - gone)
    assert cache.lengths == [LENGTHS[who] for who in held]
    for layer in cache.layers:
        for row, who in enumerate(held):
            assert (layer.keys[row, :, : LENGTHS[who]] == who).all()
            assert (layer.values[row, :, : LENGTHS[who]] == who + 100).all()
