"""Sums and order statistics against exact references."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.merge.reductions import absolute_sum, dot_product, largest_mask


@pytest.mark.parametrize("count", [0, 1, 1000, 2**16, 2**16 + 1, 300_001])
def test_sums_equal_exact_ones_to_float64(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    a, b = (torch.randn(count, generator=generator) for _ in range(2))
    products = (a.double() * b.double()).tolist()
    scale = math.fsum(map(abs, products))
    # Pairwise sums in float64 lose about log2(n) half steps of 2**-53 of the summed magnitudes.
    assert dot_product(a, b) == pytest.approx(math.fsum(products), abs=scale * 1e-14)
    assert absolute_sum(a) == pytest.approx(math.fsum(a.double().abs().tolist()), rel=1e-14)


def test_sums_do_not_depend_on_the_layout() -> None:
    a = torch.randn(64, 48, generator=torch.Generator().manual_seed(0))
    assert absolute_sum(a) == absolute_sum(a.reshape(-1))
    assert dot_product(a, a) == dot_product(a.reshape(-1), a.reshape(-1))


@given(
    values=st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=30),
    share=st.floats(0.0, 1.0),
)
def test_the_largest_are_kept_and_of_equals_the_first(values: list[float], share: float) -> None:
    count = max(1, int(share * len(values)))
    mask = largest_mask(torch.tensor(values), count)
    order = sorted(range(len(values)), key=lambda index: (-values[index], index))
    assert mask.nonzero().flatten().tolist() == sorted(order[:count])
    assert set(mask.tolist()) <= {0.0, 1.0}


def test_a_mask_has_the_shape_of_its_tensor() -> None:
    magnitudes = torch.rand(5, 4, 3, generator=torch.Generator().manual_seed(1))
    mask = largest_mask(magnitudes, 17)
    assert mask.shape == (5, 4, 3)
    assert int(mask.sum()) == 17
    assert magnitudes[mask == 1].min() > magnitudes[mask == 0].max()
