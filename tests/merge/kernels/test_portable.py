"""The passes in plain torch, as other devices run them, against the compiled ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.merge.kernels import (
    absolute_sums,
    combine_task_vectors,
    count_magnitudes,
    gram,
    low_bits_in_order,
    portable,
    weighted_sum,
)
from tests.merge.kernels.test_task_vectors import COUNT, family, masks_of

WEIGHTS = [0.37, -0.61, 0.83]

# Both compute in float32 and add in the same order; torch may contract a product with a sum, which
# spares one rounding. bfloat16 results then differ where a value lies halfway between two.
TOLERANCE = 1e-6


@pytest.mark.parametrize("rows", [1, 7])
def test_weighted_sums(rows: int) -> None:
    tensors = [torch.randn(7, 3001).bfloat16() for _ in range(3)]
    coefficients = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
    ours, theirs = torch.empty(7, 3001), torch.empty(7, 3001)
    weighted_sum(tensors, coefficients, ours)
    portable.weighted_sum(tensors, coefficients, theirs)
    assert torch.allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("elect", [False, True])
@pytest.mark.parametrize("kind", ["all", "band", "random", "ranked"])
def test_task_vectors(kind: str, elect: bool, normalize: bool) -> None:
    base, experts = family(3, torch.bfloat16)
    masks = masks_of(kind, base, experts)
    ours, theirs = torch.empty(COUNT), torch.empty(COUNT)
    how = {"weights": WEIGHTS, "elect": elect, "normalize": normalize, "strength": 1.3}
    combine_task_vectors(base, experts, WEIGHTS, masks, ours, left_out=0.0, **how)
    divisor = sum(WEIGHTS) if normalize else 1.0
    portable.combine_task_vectors(base, experts, WEIGHTS, masks, theirs, divisor=divisor, **how)
    assert torch.allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["all", "band", "random", "ranked"])
def test_sums_of_magnitudes(kind: str) -> None:
    base, experts = family(1, torch.bfloat16)
    (mask,) = masks_of(kind, base, experts)
    ours = absolute_sums(base, experts, [mask])[0]
    assert portable.absolute_sum(base, experts[0], mask) == pytest.approx(ours, rel=2e-7)


def test_facts() -> None:
    base, experts = family(2, torch.bfloat16)
    assert np.allclose(portable.gram(experts, base), gram(experts, base), rtol=1e-12)
    bits = portable.magnitude_bits(base, experts[0])
    counts = count_magnitudes(base, experts[0])
    assert counts[0].tolist() == torch.unique(bits >> 15).tolist()
    table = low_bits_in_order(base, experts[0])
    assert np.array_equal(table, (bits.sort().values & 0x7FFF).numpy().astype(np.uint16))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["all", "band", "random", "ranked"])
@pytest.mark.parametrize("elect", [False, True])
def test_a_gpu_gives_what_the_cpu_gives(kind: str, elect: bool) -> None:
    base, experts = family(3, torch.bfloat16)
    masks = masks_of(kind, base, experts)
    here, there = torch.empty(COUNT), torch.empty(COUNT, device="cuda")
    how = {"weights": WEIGHTS, "elect": elect, "normalize": True, "strength": 1.3}
    combine_task_vectors(base, experts, WEIGHTS, masks, here, left_out=0.0, **how)
    on_gpu = [expert.cuda() for expert in experts]
    combine_task_vectors(base.cuda(), on_gpu, WEIGHTS, masks, there, left_out=0.0, **how)
    assert torch.allclose(here, there.cpu(), rtol=1e-5, atol=1e-5)
