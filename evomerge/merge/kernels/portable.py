"""The same passes in plain torch, for devices other than the CPU.

On a GPU, `_fused` lets torch's compiler turn a pass into one kernel. On the CPU, torch runs the
passes eagerly; there they are the slow reference for tests of the compiled passes. Random draws are
the same on every device; rounding may differ in the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evomerge.deferred import torch
from evomerge.merge.kernels.masks import (
    DRAW_BITS,
    KEEP_BAND,
    KEEP_RANDOM,
    KEEP_RANKED,
    LIMIT_BITS,
    Mask,
    draw_at,
)
from evomerge.merge.kernels.storage import Elements

Pass: TypeAlias = "Callable[..., torch.Tensor]"


def runs_here(tensor: torch.Tensor | Elements) -> bool:
    """Whether compiled CPU code can read the tensor."""
    return isinstance(tensor, Elements) or tensor.device.type == "cpu"


def weighted_sum(
    tensors: Sequence[torch.Tensor], coefficients: NDArray[np.float32], out: torch.Tensor
) -> None:
    """See kernels.weighted_sum; coefficients: (rows or 1, members)."""
    factors = torch.from_numpy(coefficients).to(out.device)
    rows = factors.shape[0]
    flat = [tensor.reshape(rows, -1) for tensor in tensors]
    out.copy_(_fused(_weighted_sum, out.device)(flat, factors).view(out.shape))


def combine_task_vectors(
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    factors: Sequence[float],
    masks: Sequence[Mask],
    out: torch.Tensor,
    *,
    weights: Sequence[float],
    divisor: float,
    elect: bool,
    normalize: bool,
    strength: float,
) -> None:
    """See kernels.combine_task_vectors; divisor: what a sum without election is divided by."""
    device = out.device
    numbers = torch.tensor([factors, weights], dtype=torch.float32).to(device)
    mixed = _fused(_combine, device)(
        base.reshape(-1),
        [expert.reshape(-1) for expert in experts],
        [_keep(mask, device) for mask in masks],
        numbers,
        torch.tensor([strength, divisor], dtype=torch.float32).to(device),
        elect,
        normalize,
    )
    out.copy_(mixed.view(out.shape))


def absolute_sum(base: torch.Tensor, expert: torch.Tensor, mask: Mask) -> float:
    """See kernels.absolute_sum."""
    device = base.device
    kept = _fused(_masked, device)(base.reshape(-1), expert.reshape(-1), _keep(mask, device))
    return float(kept.abs().sum(dtype=torch.float64))


def sums_by_draw(base: torch.Tensor, expert: torch.Tensor, key: int) -> NDArray[np.float64]:
    """See kernels.sums_by_draw, before the sums are added up."""
    magnitudes = _difference(expert, base).abs().double().reshape(-1)
    index = torch.arange(magnitudes.numel(), dtype=torch.int64, device=base.device)
    bins = 1 + (draw_at(index, key & 0xFFFFFFFF, key >> 32) >> (DRAW_BITS - LIMIT_BITS))
    sums: NDArray[np.float64] = (
        torch.bincount(bins, weights=magnitudes, minlength=2**LIMIT_BITS + 1).cpu().numpy()
    )
    return sums


def gram(tensors: Sequence[torch.Tensor], base: torch.Tensor | None) -> NDArray[np.float64]:
    """See kernels.gram."""
    products = np.zeros((len(tensors), len(tensors)))
    vectors = [_difference(tensor, base).reshape(-1) for tensor in tensors]
    for row, first in enumerate(vectors):
        for column, second in enumerate(vectors[: row + 1]):
            product = float(torch.dot(first.double(), second.double()))
            products[row, column] = products[column, row] = product
    return products


def magnitude_bits(base: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
    """The 31 bits of each |θ - base|, which order as the magnitudes do; int32, (elements,)."""
    return _difference(expert, base).abs().view(torch.int32).reshape(-1)


def _difference(tensor: torch.Tensor, base: torch.Tensor | None) -> torch.Tensor:
    return tensor.float() if base is None else tensor.float() - base.float()


Keep: TypeAlias = "tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]"
"""kind; two float32 numbers (the band, or probability and slope); the key's halves and the limit,
int64; ranks, float32. They are tensors because a compiled pass would be compiled again for every
new number.
"""


def _keep(mask: Mask, device: torch.device) -> Keep:
    numbers = mask.numbers()
    pair = (mask.low, mask.high) if mask.kind == KEEP_BAND else (mask.probability, mask.slope)
    words = torch.from_numpy(numbers[3:6].astype(np.int64)).to(device)
    ranks = torch.from_numpy(mask.ranks.astype(np.float32)).to(device)
    return mask.kind, torch.tensor(pair, dtype=torch.float32).to(device), words, ranks


def _kept(vector: torch.Tensor, keep: Keep) -> torch.Tensor:
    kind, pair, words, ranks = keep
    if kind == KEEP_BAND:
        magnitude = vector.abs()
        return vector * ((magnitude >= pair[0]) & (magnitude <= pair[1]))
    if kind in (KEEP_RANDOM, KEEP_RANKED):
        index = torch.arange(vector.numel(), dtype=torch.int64, device=vector.device)
        draws = draw_at(index, words[0], words[1])
        if kind == KEEP_RANDOM:
            return vector * (draws < words[2])
        limits = ((pair[0] + pair[1] * ranks) * 2.0**32).long()
        return vector * (draws < limits)
    return vector


def _weighted_sum(tensors: list[torch.Tensor], factors: torch.Tensor) -> torch.Tensor:
    total = tensors[0].float() * factors[:, 0:1]
    for member, tensor in enumerate(tensors[1:], start=1):
        total = total + tensor.float() * factors[:, member : member + 1]
    return total


def _masked(base: torch.Tensor, expert: torch.Tensor, keep: Keep) -> torch.Tensor:
    return _kept(expert.float() - base.float(), keep)


def _combine(
    base: torch.Tensor,
    experts: list[torch.Tensor],
    keeps: list[Keep],
    numbers: torch.Tensor,
    scales: torch.Tensor,
    elect: bool,
    normalize: bool,
) -> torch.Tensor:
    origin = base.float()
    terms = [
        _kept(expert.float() - origin, keep) * numbers[0, member]
        for member, (expert, keep) in enumerate(zip(experts, keeps, strict=True))
    ]
    vote = terms[0]
    for term in terms[1:]:
        vote = vote + term
    if not elect:
        return origin + vote / scales[1] * scales[0]
    sign = torch.where(vote >= 0, 1.0, -1.0)
    total, divisor = torch.zeros_like(vote), torch.zeros_like(vote)
    for member, term in enumerate(terms):
        agreeing = term * sign
        total = total + agreeing.clamp_min(0.0)
        divisor = divisor + torch.where(agreeing > 0, numbers[1, member], 0.0)
    if normalize:
        total = total / torch.where(divisor == 0, 1.0, divisor)
    # Keep NaN visible in the result.
    return origin + torch.where(vote.isnan(), vote, total * sign) * scales[0]


def _fused(work: Pass, device: torch.device) -> Pass:
    """The pass itself, or on a GPU the one kernel that torch's compiler makes of it."""
    return _compiled(work) if device.type == "cuda" else work


@cache
def _compiled(work: Pass) -> Pass:
    compiled: Any = torch.compile(work, dynamic=True)
    return compiled  # type: ignore[no-any-return]
