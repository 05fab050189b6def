"""The fused passes against a slow reference that makes every intermediate tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from evomerge.merge.kernels import (
    KEEP_BAND,
    KEEP_RANDOM,
    KEEP_RANKED,
    Mask,
    absolute_sums,
    combine_task_vectors,
    row_ranks,
    task_vectors,
)
from evomerge.merge.kernels.masks import draw, draw_key, draw_limit

COUNT = 70_001  # no multiple of a block, and enough for two threads

# Against torch's float32: the order of the few additions is the same, divisions and the product of
# weight and rescaling may round once more.
TOLERANCE = 3e-7


def kept(mask: Mask, vector: torch.Tensor) -> torch.Tensor:
    """What a mask keeps of a task vector, element by element as documented."""
    if mask.kind == KEEP_BAND:
        return vector * ((vector.abs() >= mask.low) & (vector.abs() <= mask.high))
    if mask.kind == KEEP_RANDOM:
        return vector * (draw(mask.key, vector.numel()) < draw_limit(mask.probability))
    if mask.kind == KEEP_RANKED:
        slope, start = np.float32(mask.slope), np.float32(mask.probability)
        shares = torch.from_numpy(start + slope * mask.ranks.astype(np.float32))
        limits = (shares * 2.0**32).long()
        return vector * (draw(mask.key, vector.numel()) < limits)
    return vector


def reference(
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    factors: Sequence[float],
    masks: Sequence[Mask],
    weights: Sequence[float],
    *,
    elect: bool,
    normalize: bool,
    strength: float,
) -> torch.Tensor:
    """base + strength · consensus, in float64 but for the signs' vote, which is float32's."""
    vectors = [
        kept(mask, expert.float() - base.float())
        for mask, expert in zip(masks, experts, strict=True)
    ]
    terms = [vector * np.float32(factor) for vector, factor in zip(vectors, factors, strict=True)]
    if not elect:
        total = sum(term.double() for term in terms)
        return base.double() + strength * total / (sum(weights) if normalize else 1.0)
    vote = torch.zeros_like(terms[0])
    for term in terms:
        vote = vote + term
    sign = torch.where(vote >= 0, 1.0, -1.0)
    agrees = [term * sign > 0 for term in terms]
    total = sum((term * agree).double() for term, agree in zip(terms, agrees, strict=True))
    divisor = sum(agree.double() * weight for agree, weight in zip(agrees, weights, strict=True))
    if normalize:
        total = total / torch.where(divisor == 0, 1.0, divisor)
    return base.double() + strength * total


def masks_of(kind: str, base: torch.Tensor, experts: Sequence[torch.Tensor]) -> list[Mask]:
    keys = [draw_key(seed=3, place=place, tensor_name="w") for place in range(len(experts))]
    if kind == "band":
        return [Mask(kind=KEEP_BAND, low=0.7 + 0.2 * i, high=2.5) for i in range(len(experts))]
    if kind == "random":
        return [Mask(kind=KEEP_RANDOM, key=key, probability=0.37) for key in keys]
    if kind == "ranked":
        width = COUNT
        return [
            Mask(
                kind=KEEP_RANKED,
                key=key,
                probability=0.2,
                slope=0.5 / (width - 1),
                ranks=row_ranks(base, expert, width),
            )
            for key, expert in zip(keys, experts, strict=True)
        ]
    return [Mask() for _ in experts]


def family(count: int, dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(count)
    base = torch.randn(COUNT, generator=generator).to(dtype)
    return base, [torch.randn(COUNT, generator=generator).to(dtype) for _ in range(count)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("elect", [False, True])
@pytest.mark.parametrize("kind", ["all", "band", "random", "ranked"])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_pass_is_what_its_parts_say(
    count: int, kind: str, elect: bool, normalize: bool, dtype: torch.dtype
) -> None:
    base, experts = family(count, dtype)
    weights = [0.37, -0.61, 0.83, 0.29][:count]
    factors = [weight * 1.3 for weight in weights]
    masks = masks_of(kind, base, experts)
    out = torch.empty(COUNT)
    how = {"elect": elect, "normalize": normalize, "strength": 1.7}
    combine_task_vectors(base, experts, factors, masks, out, weights=weights, left_out=0.0, **how)
    expected = reference(base, experts, factors, masks, weights, **how)
    assert float(((out - expected).abs() / (expected.abs() + 1)).max()) < 10 * TOLERANCE


def test_weights_that_are_not_here_count_in_the_divisor() -> None:
    base, experts = family(1, torch.float32)
    out = torch.empty(COUNT)
    combine_task_vectors(
        base,
        experts,
        [0.5],
        [Mask()],
        out,
        weights=[0.5],
        left_out=1.5,
        elect=False,
        normalize=True,
        strength=1.0,
    )
    expected = base + (experts[0] - base) * 0.25
    assert torch.allclose(out, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["all", "band", "random", "ranked"])
@pytest.mark.parametrize("elect", [False, True])
def test_any_number_of_threads_gives_the_same_bytes(kind: str, elect: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(5 * COUNT, generator=generator).bfloat16()
    experts = [torch.randn(5 * COUNT, generator=generator).bfloat16() for _ in range(2)]
    masks = masks_of(kind, base, experts) if kind != "ranked" else masks_of("random", base, experts)
    results, sums = [], []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        out = torch.empty(base.shape, dtype=torch.bfloat16)
        combine_task_vectors(
            base,
            experts,
            [0.3, 0.4],
            masks,
            out,
            weights=[0.3, 0.4],
            left_out=0.0,
            elect=elect,
            normalize=True,
            strength=1.0,
        )
        results.append(out)
        sums.append(absolute_sums(base, experts, masks).tobytes())
    assert all(torch.equal(result, results[0]) for result in results)
    assert len(set(sums)) == 1


@pytest.mark.parametrize("kind", ["all", "band", "random", "ranked"])
@pytest.mark.parametrize("count", [5, 1024, 65_536, COUNT])
def test_sums_of_magnitudes_hold_to_seven_digits(kind: str, count: int) -> None:
    base, (expert,) = family(1, torch.bfloat16)
    (mask,) = masks_of(kind, base, [expert])
    base, expert = base[:count], expert[:count]
    if kind == "ranked":
        ranks = row_ranks(base, expert, count)
        mask = Mask(kind=KEEP_RANKED, key=5, probability=0.2, slope=0.5 / count, ranks=ranks)
    expected = kept(mask, expert.float() - base.float()).abs().double().sum()
    assert absolute_sums(base, [expert], [mask])[0] == pytest.approx(float(expected), rel=2e-7)


@pytest.mark.parametrize("kind", ["all", "band", "random", "ranked"])
@pytest.mark.parametrize("elect", [False, True])
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_what_is_no_number_in_a_source_shows_in_the_result(
    kind: str, elect: bool, wrong: float
) -> None:
    """Kept or dropped, whatever the other experts say: a diverged checkpoint must not hide."""
    base, experts = family(3, torch.bfloat16)
    masks = masks_of(kind, base, experts)
    experts[1][[5, 700, COUNT - 1]] = wrong
    out = torch.empty(COUNT)
    combine_task_vectors(
        base,
        experts,
        [0.4, 0.5, 0.6],
        masks,
        out,
        weights=[0.4, 0.5, 0.6],
        left_out=0.0,
        elect=elect,
        normalize=True,
        strength=1.0,
    )
    finite = torch.isfinite(out)
    assert not finite[[5, 700, COUNT - 1]].any()
    assert int((~finite).sum()) == 3


def test_masks_with_and_without_ranks_go_together() -> None:
    """Ranks of four bytes, mapped read-only from a file, beside a member that keeps everything."""
    base, experts = family(2, torch.bfloat16)
    ranks = row_ranks(base, experts[0], COUNT)
    ranks.setflags(write=False)
    mask = Mask(kind=KEEP_RANKED, key=7, probability=0.2, slope=0.5 / COUNT, ranks=ranks)
    masks, out = [mask, Mask()], torch.empty(COUNT)
    how = {"elect": True, "normalize": True, "strength": 1.0}
    weights = [0.3, 0.8]
    combine_task_vectors(base, experts, weights, masks, out, weights=weights, left_out=0.0, **how)
    expected = reference(base, experts, weights, masks, weights, **how)
    assert float(((out - expected).abs() / (expected.abs() + 1)).max()) < 10 * TOLERANCE


@pytest.mark.parametrize("elect", [False, True])
def test_any_number_of_models_is_merged_by_the_same_compiled_code(elect: bool) -> None:
    """Else each number of models would wait for the compiler again."""
    kernel = task_vectors._elected if elect else task_vectors._added
    before: set[object] = set()
    for members in (1, 2, 3, 4, 7):
        tensors = [torch.zeros(8) for _ in range(members + 1)]
        ones, masks = [1.0] * members, [Mask(kind=KEEP_BAND)] * members
        combine_task_vectors(
            tensors[0],
            tensors[1:],
            ones,
            masks,
            torch.zeros(8),
            weights=ones,
            left_out=0.0,
            elect=elect,
            normalize=False,
            strength=1.0,
        )
        compiled = set(kernel.signatures)
        assert not before or compiled == before
        before = compiled
