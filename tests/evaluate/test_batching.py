"""Batches: every request once, within the budget, and a budget that fits in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig

from evomerge.evaluate.engines.transformers.batching import cut, pad, probe_tokens, tree_limits

LENGTHS = st.lists(st.integers(1, 50), max_size=60).map(lambda lengths: sorted(lengths)[::-1])


@given(lengths=LENGTHS, tokens=st.integers(1, 200))
def test_batches_cover_every_request_once_within_the_budget(
    lengths: list[int], tokens: int
) -> None:
    ranges = cut(lengths, tokens=tokens)
    assert [i for start, stop in ranges for i in range(start, stop)] == list(range(len(lengths)))
    for start, stop in ranges:
        assert stop - start == 1 or (stop - start) * lengths[start] <= tokens


@given(lengths=LENGTHS, rows=st.integers(1, 20))
def test_a_number_of_rows_is_kept(lengths: list[int], rows: int) -> None:
    sizes = [stop - start for start, stop in cut(lengths, rows=rows)]
    assert all(size == rows for size in sizes[:-1])
    assert sum(sizes) == len(lengths)


def test_padding_goes_to_the_side_asked_for() -> None:
    rows = [np.array([1, 2, 3]), np.array([4])]
    assert pad(rows, side="right").tolist() == [[1, 2, 3], [4, 0, 0]]
    assert pad(rows, side="left").tolist() == [[1, 2, 3], [0, 0, 4]]


@pytest.mark.parametrize(("fits", "expected"), [(10**9, 51_200), (40_000, 16_350), (100, 100)])
def test_the_budget_is_half_of_what_fits(fits: int, expected: int) -> None:
    tried: list[int] = []

    def try_batch(rows: int) -> None:
        tried.append(rows)
        if rows * 100 > fits:
            raise torch.OutOfMemoryError

    assert probe_tokens(try_batch, longest_tokens=100) == expected
    assert tried == sorted(tried)[::-1]


@pytest.mark.parametrize("pass_tokens", [16, 64, 1024, 1 << 16])
@pytest.mark.parametrize("hidden", [32, 128, 768, 8192])
def test_rows_fit_their_pass_and_are_no_longer_than_attention_is_cheap(
    hidden: int, pass_tokens: int
) -> None:
    limits = tree_limits(LlamaConfig(hidden_size=hidden), pass_tokens=pass_tokens)
    assert limits.packed_tokens <= limits.row_tokens <= pass_tokens == limits.pass_tokens
    assert limits.row_tokens <= max(64, min(hidden, 1024))
    assert limits.packed_tokens <= max(64, hidden // 2)
