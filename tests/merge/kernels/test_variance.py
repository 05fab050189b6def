"""Passes over what varies among the models, against torch's own arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.merge.kernels.across_models import add_selected, selected_squares, variances

STORED = [torch.float32, torch.bfloat16, torch.float16]
WEIGHTS = [0.2, 0.5, 0.3]


def models(size: int, dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(size)
    base, *experts = (torch.randn(size, generator=generator).to(dtype) for _ in range(4))
    return base, experts


@pytest.mark.parametrize("dtype", STORED, ids=str)
@pytest.mark.parametrize("size", [1, 1023, 1025, 200_003])
def test_what_varies_is_selected_and_elected(size: int, dtype: torch.dtype) -> None:
    base, experts = models(size, dtype)
    vectors = torch.stack([expert.float() - base.float() for expert in experts])
    found = variances(base, experts)
    torch.testing.assert_close(found, vectors.var(dim=0, unbiased=False), rtol=2e-6, atol=1e-7)
    least = float(found.median())
    kept = vectors * (found >= least)
    np.testing.assert_allclose(
        selected_squares(base, experts, least), kept.double().square().sum(dim=1), rtol=1e-12
    )
    agreeing = kept.sign() == torch.where(kept.sum(dim=0) >= 0, 1.0, -1.0)
    shares = torch.tensor(WEIGHTS)[:, None] * agreeing
    expected = base.float() + (kept * shares).sum(dim=0) / shares.sum(dim=0).clamp(min=1e-6)
    out = torch.empty(size, dtype=torch.float32)
    add_selected(base, experts, WEIGHTS, least, 1e-6, out)
    torch.testing.assert_close(out, expected, rtol=5e-7, atol=1e-6)
    rounded = torch.empty(size, dtype=dtype)
    add_selected(base, experts, WEIGHTS, least, 1e-6, rounded)
    assert torch.equal(rounded, out.to(dtype))


def test_any_number_of_threads_gives_the_same_bytes() -> None:
    base, experts = models(300_007, torch.bfloat16)
    results = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        out = torch.empty_like(base)
        add_selected(base, experts, WEIGHTS, 0.3, 1e-6, out)
        results.append((variances(base, experts), selected_squares(base, experts, 0.3), out))
    for found, squares, out in results[1:]:
        assert torch.equal(found, results[0][0])
        assert np.array_equal(squares, results[0][1])
        assert torch.equal(out, results[0][2])
