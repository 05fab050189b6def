"""The passes in plain torch, as other devices run them, against the compiled ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.merge.kernels import (
    KEEP_BAND,
    Mask,
    absolute_sums,
    combine_task_vectors,
    count_magnitudes,
    gram,
    low_bits_in_order,
    magnitudes_at,
    portable,
    rescaled,
    row_gram,
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
    (theirs,) = portable.absolute_sums(base, experts, [mask]).tolist()
    assert theirs == pytest.approx(ours, rel=2e-7)


def test_facts() -> None:
    base, experts = family(2, torch.bfloat16)
    assert np.allclose(portable.gram(experts, base), gram(experts, base), rtol=1e-12)
    bits = portable.magnitude_bits(base, experts[0])
    counts = count_magnitudes(base, experts[0])
    assert counts[0].tolist() == torch.unique(bits >> 15).tolist()
    table = low_bits_in_order(base, experts[0])
    assert np.array_equal(table, (bits.sort().values & 0x7FFF).numpy().astype(np.uint16))


def test_a_magnitude_is_found_without_a_table_and_without_waiting() -> None:
    base, experts = family(1, torch.bfloat16)
    counts = count_magnitudes(base, experts[0])
    ordered = (experts[0].float() - base.float()).abs().sort().values
    places = (0, 1, COUNT // 3, COUNT - 2, COUNT - 1)
    found = magnitudes_at(places, counts, base, experts[0])
    assert torch.equal(found, ordered[list(places)])


@pytest.mark.parametrize("whole", [False, True])
def test_bounds_on_the_device_are_those_of_the_host(whole: bool) -> None:
    base, experts = family(2, torch.bfloat16)
    masks = [Mask(kind=KEEP_BAND, low=0.25, high=1.5), Mask(kind=KEEP_BAND, low=0.125)]
    there = [Mask(kind=KEEP_BAND, bounds=torch.tensor([mask.low, mask.high])) for mask in masks]
    how = {"weights": WEIGHTS[:2], "divisor": 1.0, "elect": whole, "normalize": False}
    results = [torch.empty(COUNT), torch.empty(COUNT)]
    for given, out in zip((masks, there), results, strict=True):
        portable.combine_task_vectors(base, experts, WEIGHTS[:2], given, out, strength=1.0, **how)
    assert torch.equal(*results)


@pytest.mark.parametrize("kind", ["random", "ranked"])
def test_rescaled_weights(kind: str) -> None:
    base, experts = family(3, torch.bfloat16)
    masks = masks_of(kind, base, experts)
    before = absolute_sums(base, experts, [Mask()] * 3).tolist()
    before[1] = 0.0  # kept whole
    ours = rescaled(base, experts, masks, weights=WEIGHTS, before=before, smallest=1e-7)
    after = portable.absolute_sums(base, experts, masks)
    theirs = portable.rescaled(WEIGHTS, before, after, 1e-7)
    assert theirs.tolist() == pytest.approx(ours, rel=1e-6)
    assert ours[1] == WEIGHTS[1] and abs(ours[0]) > abs(WEIGHTS[0])


def test_inner_products_of_rows_and_columns() -> None:
    tensors = [torch.randn(7, 301).bfloat16() for _ in range(3)]
    for dim, moved in ((0, tensors), (1, [tensor.T for tensor in tensors])):
        assert np.allclose(
            portable.row_gram(moved, None), row_gram(tensors, dim=dim), rtol=1e-12, atol=1e-12
        )


def test_weighted_columns() -> None:
    tensors = [torch.randn(40, 31).bfloat16() for _ in range(2)]
    shares = np.random.default_rng(0).normal(size=(2, 31)).astype(np.float32)
    out = torch.empty(40, 31)
    portable.weighted_columns(tensors, shares, out)
    numbers = torch.from_numpy(shares)
    expected = tensors[0].float() * numbers[0] + tensors[1].float() * numbers[1]
    assert torch.equal(out, expected)


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
