"""Sums over random masks from a table, against adding up what is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.merge.kernels import (
    KEEP_RANDOM,
    Mask,
    absolute_sums,
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
