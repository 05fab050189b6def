"""Sums over random masks from a table, against adding up what is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.merge.kernels import (
    KEEP_RANDOM,
    Mask,
    absolute_sums,
    exact_sums,
    portable,
    sum_below,
    sums_by_draw,
)
from evomerge.merge.kernels.masks import draw_key, draw_limit
from tests.merge.kernels.test_task_vectors import family

KEY = draw_key(seed=4, place=1, tensor_name="w")


@pytest.mark.parametrize("density", [1e-7, 1e-5, 0.1, 0.371, 0.9, 0.99999, 1 - 1e-9])
def test_a_density_is_looked_up(density: float) -> None:
    base, (expert,) = family(1, torch.bfloat16)
    mask = Mask(kind=KEEP_RANDOM, key=KEY, probability=density)
    # Both are float64 sums of the same 70,001 terms, one of them over sums of 16 in float32.
    kept = absolute_sums(base, [expert], [mask])[0]
    assert sum_below(sums_by_draw(base, expert, KEY), density) == pytest.approx(kept, rel=2e-7)


def test_the_last_sum_is_of_all() -> None:
    base, (expert,) = family(1, torch.float32)
    everything = (expert - base).abs().double().sum()
    assert sums_by_draw(base, expert, KEY)[-1] == pytest.approx(float(everything), rel=1e-12)


def test_other_devices_add_up_the_same() -> None:
    base, (expert,) = family(1, torch.bfloat16)
    ours = sums_by_draw(base, expert, KEY)
    theirs = np.cumsum(portable.sums_by_draw(base, expert, KEY))
    assert np.allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("density", [0.0, 0.25, 0.37, 0.5, 0.999])
def test_limits_are_the_density_to_a_part_in_a_hundred_thousand(density: float) -> None:
    assert abs(draw_limit(density) / 2**32 - density) <= 2**-17


def tensors(dtype: torch.dtype, *, scale: float = 0.02) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(200_003, generator=generator) * scale
    noise = torch.randn(200_003, generator=generator) * scale / 10
    return base.to(dtype), (base + noise).to(dtype)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("density", [1e-7, 0.25, 0.371, 0.99999])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_without_a_table_are_the_table_s_to_the_bit(
    dtype: torch.dtype, density: float, threads: int
) -> None:
    base, expert = tensors(dtype)
    base[:70_000] = expert[:70_000] = 0.0  # all that one thread reads
    table = sums_by_draw(base, expert, KEY)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = exact_sums(base, expert, KEY, density)
    finally:
        torch.set_num_threads(before)
    assert found == (float(table[-1]), sum_below(table, density))


def test_sums_that_depend_on_the_order_are_left_to_the_table() -> None:
    """Of numbers with more digits than a sum can hold; also where one number alone has them."""
    for base, expert in (tensors(torch.float32), tensors(torch.bfloat16)):
        base[-1], expert[-1] = 0.0, 1e-30
        assert exact_sums(base, expert, KEY, 0.4) is None
    expert[-1] = torch.nan
    assert exact_sums(base, expert, KEY, 0.4) is None
    zeros = torch.zeros(5, dtype=torch.bfloat16)
    assert exact_sums(zeros, zeros, KEY, 0.4) == (0.0, 0.0)


@pytest.mark.parametrize("last_digit", range(-50, -20))
def test_what_is_taken_for_exact_is_exact(last_digit: int) -> None:
    """Against sums of whole numbers, around the limit of what float64 holds."""
    base, expert = tensors(torch.bfloat16, scale=1.0)
    base[77], expert[77] = 0.0, 2.0**last_digit
    found = exact_sums(base, expert, KEY, 0.5)
    terms = (expert.float() - base.float()).abs().double().numpy()
    units = [int(term * 2.0**60) for term in terms]  # exact: no term has smaller digits
    if found is not None:
        assert int(found[0] * 2.0**60) == sum(units)
