"""Passes over who changes an element, against torch's own arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.merge.kernels.across_models import add_active, count_active

STORED = [torch.float32, torch.bfloat16, torch.float16]


def models(size: int, dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(size)
    base, *experts = (torch.randn(size, generator=generator).to(dtype) for _ in range(4))
    return base, experts


def active(base: torch.Tensor, experts: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    vectors = torch.stack([expert.float() - base.float() for expert in experts])
    return vectors, vectors.abs() > 1.0


@pytest.mark.parametrize("dtype", STORED, ids=str)
@pytest.mark.parametrize("size", [1, 1023, 1025, 200_003])
def test_changes_are_counted_and_added(size: int, dtype: torch.dtype) -> None:
    base, experts = models(size, dtype)
    vectors, changed = active(base, experts)
    number = changed.sum(dim=0)
    counts = count_active(base, experts, 1.0)
    assert counts[0].tolist() == (changed & (number > 1)).sum(dim=1).tolist()
    assert counts[1].tolist() == (changed & (number == 1)).sum(dim=1).tolist()
    factors = torch.tensor([1.5, 0.5, 2.0])
    kept = vectors * changed
    expected = base.float() + torch.where(
        number == 1, (kept * factors[:, None]).sum(dim=0), kept.sum(dim=0) / number.clamp(min=1)
    )
    out = torch.empty(size, dtype=torch.float32)
    add_active(base, experts, 1.0, factors.tolist(), out)
    torch.testing.assert_close(out, expected, rtol=2e-7, atol=5e-7)
    rounded = torch.empty(size, dtype=dtype)
    add_active(base, experts, 1.0, factors.tolist(), rounded)
    assert torch.equal(rounded, out.to(dtype))


def test_any_number_of_threads_counts_and_adds_the_same() -> None:
    base, experts = models(300_007, torch.bfloat16)
    results = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        out = torch.empty_like(base)
        add_active(base, experts, 1.0, [1.5, 0.5, 2.0], out)
        results.append((count_active(base, experts, 1.0), out))
    for counts, out in results[1:]:
        assert np.array_equal(counts, results[0][0])
        assert torch.equal(out, results[0][1])
