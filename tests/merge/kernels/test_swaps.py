"""Passes that take elements from one of two models, against torch's own arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.merge.kernels.swaps import swap_important, swap_near

STORED = [torch.float32, torch.bfloat16, torch.float16]


def pair(dtype: torch.dtype, *shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(2)]


@pytest.mark.parametrize("dtype", STORED, ids=str)
@pytest.mark.parametrize("size", [1, 1023, 1025, 200_003])
@pytest.mark.parametrize("reach", [0.3, 0.0, -1.0])
def test_near_values_are_swapped(size: int, dtype: torch.dtype, reach: float) -> None:
    base, other = pair(dtype, size)
    a, b = base.float(), other.float()
    share = (reach / (a - b).abs().clamp(min=0.01)).clamp(min=0.0, max=1.0)
    out = torch.empty_like(base)
    swap_near(base, other, reach, 0.01, out)
    expected = share * b + (1.0 - share) * a
    # The quotient is rounded once here and twice there; and then to the stored dtype.
    tolerance = 5e-7 if dtype == torch.float32 else float(torch.finfo(dtype).eps)
    torch.testing.assert_close(out.float(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", STORED, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (700, 3), (3, 1025), (301, 777)])
def test_important_values_are_swapped(shape: tuple[int, int], dtype: torch.dtype) -> None:
    base, other = pair(dtype, *shape)
    importances = np.linspace(0.0, 2.0, shape[0], dtype=np.float32)
    vector = other.float() - base.float()
    fused = vector.abs() * torch.from_numpy(importances)[:, None] >= 0.8
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        out = torch.empty_like(base)
        swap_important(base, other, importances, 0.8, out)
        results.append(out)
    assert all(torch.equal(out, (base.float() + vector * fused).to(dtype)) for out in results)
