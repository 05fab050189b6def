"""Order statistics against sorting everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.merge.kernels import (
    count_magnitudes,
    low_bits_in_order,
    magnitude_at,
    row_ranks,
)


def family(kind: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    base = torch.randn(count, generator=generator) * 0.02
    expert = base + torch.randn(count, generator=generator) * 0.001
    if kind == "bfloat16":  # many equal magnitudes, many of them zero
        return base.bfloat16(), expert.bfloat16()
    if kind == "all equal":
        return torch.zeros(count), torch.full((count,), -0.25)
    return base, expert


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "all equal"])
@pytest.mark.parametrize("count", [1, 2, 1025, 150_001])
@pytest.mark.parametrize("tabled", [False, True])
def test_a_place_in_the_order_is_found_exactly(kind: str, count: int, tabled: bool) -> None:
    base, expert = family(kind, count)
    counts = count_magnitudes(base, expert)
    table = low_bits_in_order(base, expert) if tabled else None
    ordered = np.sort((expert.float() - base.float()).abs().numpy())
    for place in sorted({0, count - 1, count // 2, count // 3, int(0.9 * count)}):
        assert magnitude_at(place, counts, table, base, expert) == ordered[place]


def test_a_table_takes_two_bytes_an_element_and_counts_little() -> None:
    base, expert = family("float32", 150_001)
    assert low_bits_in_order(base, expert).nbytes == 2 * 150_001
    assert count_magnitudes(base, expert).nbytes < 2**17


@pytest.mark.parametrize(("rows", "width"), [(1, 1000), (37, 211), (2, 70_000)])
def test_ranks_count_the_smaller_ones_of_a_row(rows: int, width: int) -> None:
    base, expert = family("bfloat16", rows * width)
    magnitudes = (expert.float() - base.float()).abs().reshape(rows, width).numpy()
    ranks = row_ranks(base, expert, width).reshape(rows, width)
    for row in range(0, rows, 7):
        assert sorted(ranks[row].tolist()) == list(range(width))
        assert (np.diff(magnitudes[row][np.argsort(ranks[row])]) >= 0).all()


HARD = {
    "random": lambda chance, count: torch.randn(count, generator=chance),
    "few values": lambda chance, count: torch.randint(-3, 4, (count,), generator=chance) / 8,
    "all equal": lambda chance, count: torch.full((count,), 0.25),
    "all zero": lambda chance, count: torch.zeros(count),
    "one is not zero": lambda chance, count: torch.nn.functional.one_hot(
        torch.tensor(count // 2), count
    ),
    "with periods": lambda chance, count: (torch.arange(count) % 4096) / 4096.0,
    "sorted": lambda chance, count: torch.arange(count) / count,
    "NaN and infinity": lambda chance, count: (
        torch.randn(count, generator=chance)
        .index_fill(0, torch.arange(0, count, 7), float("nan"))
        .index_fill(0, torch.arange(0, count, 11), float("-inf"))
    ),
}


@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("count", [1, 2, 1000, 200_003])
def test_a_single_merge_finds_what_sorting_finds(kind: str, dtype: str, count: int) -> None:
    chance = torch.Generator().manual_seed(count)
    expert = HARD[kind](chance, count).to(getattr(torch, dtype))
    base = torch.zeros_like(expert)
    ordered = np.sort((expert.float() - base.float()).abs().numpy().view(np.uint32))
    places = sorted({0, count - 1, count // 2, count // 3, int(0.9 * count), int(0.999 * count)})
    counts = count_magnitudes(base, expert)
    selected = [magnitude_at(place, counts, None, base, expert) for place in places]
    assert (np.array(selected, dtype=np.float32).view(np.uint32) == ordered[places]).all()
