"""Inner products against numpy's in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.merge.kernels import gram, row_gram


def tensors(count: int, *shape: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(count)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 31, 65_537, 200_003])
@pytest.mark.parametrize("with_base", [False, True])
def test_products_of_whole_tensors(dtype: torch.dtype, size: int, with_base: bool) -> None:
    *members, base = tensors(4, size, dtype=dtype)
    origin = base if with_base else None
    vectors = [member.float() - (base.float() if with_base else 0) for member in members]
    stacked = np.stack([vector.double().numpy() for vector in vectors])
    # float64 sums of 200,000 terms in another order: some 1e-13 of the largest product.
    expected = stacked @ stacked.T
    assert np.abs(gram(members, origin) - expected).max() <= 1e-12 * np.abs(expected).max()


def test_any_number_of_threads_gives_the_same_products() -> None:
    members = tensors(2, 400_001)
    found = set()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.add(gram(members).tobytes())
    assert len(found) == 1


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_products_of_slices(dim: int) -> None:
    *members, base = tensors(3, 40, 50, 3)
    products = row_gram(members, base, dim)
    for row in range(0, members[0].shape[dim], 9):
        slices = [(member - base).select(dim, row).double().reshape(-1) for member in members]
        expected = [[float(a @ b) for a in slices] for b in slices]
        assert np.allclose(products[row], expected, rtol=1e-12)
