"""The same passes in plain torch, for devices other than the CPU.

On a GPU, `_fused` lets torch's compiler turn a pass into one kernel. On the CPU, torch runs the
passes eagerly; there they are the slow reference for tests of the compiled passes. Random draws are
the same on every device; rounding may differ in the last bit. The host never waits for a merge: the
numbers of a pass are one copy, and what a pass finds for a later one stays on the device. It waits
for facts that all candidates share, which are made once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evomerge.deferred import torch
from evomerge.devices import upload
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

Pass: TypeAlias = "Callable[..., Any]"


def runs_here(tensor: torch.Tensor | Elements) -> bool:
    """Whether compiled CPU code can read the tensor."""
    return isinstance(tensor, Elements) or tensor.device.type == "cpu"


def weighted_sum(
    tensors: Sequence[torch.Tensor], coefficients: NDArray[np.float32], out: torch.Tensor
) -> None:
    """See kernels.weighted_sum; coefficients: (rows or 1, members)."""
    rows = coefficients.shape[0]
    flat = [tensor.reshape(rows, -1) for tensor in tensors]
    factors = upload(coefficients[:, :, None], out.device)
    _fused(_weighted_sum, out.device)(flat, factors, out.view(rows, -1))


def weighted_columns(
    tensors: Sequence[torch.Tensor], coefficients: NDArray[np.float32], out: torch.Tensor
) -> None:
    """As kernels.weighted_sum with a number for each column; coefficients: (members, columns).

    tensors, out: (rows, columns), on a device that is no CPU.
    """
    factors = upload(coefficients[None], out.device)
    _fused(_weighted_sum, out.device)(list(tensors), factors, out)


def combine_task_vectors(
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    factors: Sequence[float] | torch.Tensor,
    masks: Sequence[Mask],
    out: torch.Tensor,
    *,
    weights: Sequence[float],
    divisor: float,
    elect: bool,
    normalize: bool,
    strength: float,
) -> None:
    """See kernels.combine_task_vectors; divisor: what a sum without election is divided by.

    factors: or a tensor of them on the device, float32, (members,).
    """
    device = out.device
    found = None if isinstance(factors, Sequence) else factors
    given = factors if isinstance(factors, Sequence) else [0.0] * len(masks)
    _fused(_combine, device)(
        base.reshape(-1),
        [expert.reshape(-1) for expert in experts],
        _keeps(masks, device),
        _packed([strength, divisor, *given, *weights], masks, device),
        found,
        out.view(-1),
        elect,
        normalize,
    )


def absolute_sums(
    base: torch.Tensor, experts: Sequence[torch.Tensor], masks: Sequence[Mask]
) -> torch.Tensor:
    """See kernels.absolute_sums; float64, (experts,), on the device."""
    device = base.device
    numbers = _packed([], masks, device)
    work = _fused(_absolute_sum, device)
    sums = [
        work(base.reshape(-1), expert.reshape(-1), keep, numbers[place])
        for place, (expert, keep) in enumerate(zip(experts, _keeps(masks, device), strict=True))
    ]
    return torch.stack(sums)


def rescaled(
    weights: Sequence[float], before: Sequence[float], after: torch.Tensor, smallest: float
) -> torch.Tensor:
    """weight · before / after of each member, float32; the weight alone for sums under `smallest`.

    after: float64, (members,), on the device, where the result is.
    """
    numbers = upload(np.array([weights, before], dtype=np.float64), after.device)
    return _fused(_rescaled, after.device)(numbers, after, smallest)  # type: ignore[no-any-return]


def sums_by_draw(base: torch.Tensor, expert: torch.Tensor, key: int) -> NDArray[np.float64]:
    """See kernels.sums_by_draw, before the sums are added up."""
    device = base.device
    sums = torch.zeros(2**LIMIT_BITS + 1, dtype=torch.float64, device=device)
    halves = upload(np.array([key & 0xFFFFFFFF, key >> 32]), device)
    ours, theirs = base.reshape(-1), expert.reshape(-1)
    for start in range(0, ours.numel(), _TALLIED):
        part = slice(start, start + _TALLIED)
        bins, magnitudes = _fused(_bins_of_draws, device)(ours[part], theirs[part], halves, start)
        sums.index_add_(0, bins, magnitudes)
    found: NDArray[np.float64] = sums.cpu().numpy()
    return found


_TALLIED = 2**26
"""Elements of which draws and magnitudes are in memory at a time, 12 bytes each."""


def gram(tensors: Sequence[torch.Tensor], base: torch.Tensor | None) -> NDArray[np.float64]:
    """See kernels.gram."""
    rows = [tensor.reshape(1, -1) for tensor in tensors]
    products: NDArray[np.float64] = row_gram(rows, None if base is None else base.reshape(1, -1))[0]
    return products


def row_gram(tensors: Sequence[torch.Tensor], base: torch.Tensor | None) -> NDArray[np.float64]:
    """See kernels.row_gram, for rows; tensors, base: (rows, width)."""
    work = _fused(_row_dots, tensors[0].device)
    pairs = [(row, column) for row in range(len(tensors)) for column in range(row + 1)]
    dots = [work(tensors[row], tensors[column], base) for row, column in pairs]
    found = torch.stack(dots).cpu().numpy()  # (pairs, rows)
    products = np.zeros((found.shape[1], len(tensors), len(tensors)))
    for (row, column), of_pair in zip(pairs, found, strict=True):
        products[:, row, column] = products[:, column, row] = of_pair
    return products


def magnitude_bits(base: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
    """The 31 bits of each |θ - base|, which order as the magnitudes do; int32, (elements,)."""
    found: torch.Tensor = _fused(_magnitude_bits, base.device)(base.reshape(-1), expert.reshape(-1))
    return found


def magnitude_inside(
    base: torch.Tensor,
    expert: torch.Tensor,
    *,
    bin_number: int,
    count: int,
    place: int,
    low_bits: int,
) -> torch.Tensor:
    """The magnitude at `place` among the `count` with these upper bits; float32, on the device.

    low_bits: how many bits are below those of `bin_number`.
    """
    bits = magnitude_bits(base, expert)
    # The number of elements is known, so the host need not wait to learn it.
    inside = torch.nonzero_static(bits >> low_bits == bin_number, size=count)[:, 0]
    return bits[inside].kthvalue(place + 1).values.view(torch.float32)


def _difference(tensor: torch.Tensor, base: torch.Tensor | None) -> torch.Tensor:
    return tensor.float() if base is None else tensor.float() - base.float()


Keep: TypeAlias = "tuple[int, torch.Tensor | None, torch.Tensor | None]"
"""kind; bounds of a band that were found on the device, float32, (2,); the 16 bits of ranks,
int16, or int32. What is None is among the numbers of the pass.
"""

_OF_MASK = 7
"""Numbers of a mask: a band, or probability and slope; the key's halves; the limit."""


def _keeps(masks: Sequence[Mask], device: torch.device) -> list[Keep]:
    return [(mask.kind, mask.bounds, _ranks(mask, device)) for mask in masks]


def _ranks(mask: Mask, device: torch.device) -> torch.Tensor | None:
    if mask.kind != KEEP_RANKED:
        return None
    # torch computes with few kinds of numbers without a sign.
    signed = np.int16 if mask.ranks.dtype == np.uint16 else np.int32
    return upload(np.require(mask.ranks, requirements=("C", "W")).view(signed), device)


def _packed(numbers: Sequence[float], masks: Sequence[Mask], device: torch.device) -> torch.Tensor:
    """Numbers of a pass and of its masks in one copy; float64, which holds all of them exactly.

    (members, own + numbers of a mask): each row begins with all `numbers`. They are a tensor,
    because a compiled pass would be compiled again for every new number.
    """
    rows = np.empty((len(masks), len(numbers) + _OF_MASK), dtype=np.float64)
    rows[:, : len(numbers)] = numbers
    for row, mask in zip(rows, masks, strict=True):
        row[len(numbers) :] = mask.numbers()[1:]
    return upload(rows, device)


def _kept(vector: torch.Tensor, keep: Keep, numbers: torch.Tensor) -> torch.Tensor:
    """numbers: of the mask, as `Mask.numbers` gives them, without the kind."""
    kind, bounds, ranks = keep
    if kind == KEEP_BAND:
        low, high = (numbers[:2].float() if bounds is None else bounds).unbind()
        magnitude = vector.abs()
        return vector * ((magnitude >= low) & (magnitude <= high))
    if kind in (KEEP_RANDOM, KEEP_RANKED):
        words = numbers[2:5].long()
        index = torch.arange(vector.numel(), dtype=torch.int64, device=vector.device)
        draws = draw_at(index, words[0], words[1])
        if kind == KEEP_RANDOM:
            return vector * (draws < words[2])
        assert ranks is not None
        chance, slope = numbers[5:7].float().unbind()
        places = ranks.int() & 0xFFFF if ranks.dtype == torch.int16 else ranks
        limits = ((chance + slope * places.float()) * 2.0**32).long()
        return vector * (draws < limits)
    return vector


def _weighted_sum(tensors: list[torch.Tensor], factors: torch.Tensor, out: torch.Tensor) -> None:
    """factors: (rows or 1, members, columns or 1)."""
    total = tensors[0].float() * factors[:, 0]
    for member, tensor in enumerate(tensors[1:], start=1):
        total = total + tensor.float() * factors[:, member]
    out.copy_(total)


def _magnitude_bits(base: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
    return _difference(expert, base).abs().view(torch.int32)


def _bins_of_draws(
    base: torch.Tensor, expert: torch.Tensor, halves: torch.Tensor, start: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """1 + the upper bits of each draw, int32, and the magnitudes in float64."""
    index = torch.arange(base.numel(), dtype=torch.int64, device=base.device) + start
    bins = 1 + (draw_at(index, halves[0], halves[1]) >> (DRAW_BITS - LIMIT_BITS))
    return bins.int(), _difference(expert, base).abs().double()


def _row_dots(first: torch.Tensor, second: torch.Tensor, base: torch.Tensor | None) -> torch.Tensor:
    """Inner products of rows, float64, (rows,)."""
    return (_difference(first, base).double() * _difference(second, base).double()).sum(dim=1)


def _absolute_sum(
    base: torch.Tensor, expert: torch.Tensor, keep: Keep, numbers: torch.Tensor
) -> torch.Tensor:
    kept = _kept(expert.float() - base.float(), keep, numbers)
    return kept.abs().sum(dtype=torch.float64)


def _rescaled(numbers: torch.Tensor, after: torch.Tensor, smallest: float) -> torch.Tensor:
    weights, before = numbers
    large = torch.minimum(before, after) >= smallest
    return torch.where(large, weights * (before / after), weights).float()


def _combine(
    base: torch.Tensor,
    experts: list[torch.Tensor],
    keeps: list[Keep],
    packed: torch.Tensor,
    found: torch.Tensor | None,
    out: torch.Tensor,
    elect: bool,
    normalize: bool,
) -> None:
    """found: factors that are not among the numbers."""
    members = len(experts)
    numbers = packed[0, : 2 + 2 * members].float()
    strength, divisor_of_sum = numbers[0], numbers[1]
    factors = numbers[2 : 2 + members] if found is None else found
    weights = numbers[2 + members :]
    origin = base.float()
    terms = [
        _kept(expert.float() - origin, keep, packed[member, 2 + 2 * members :]) * factors[member]
        for member, (expert, keep) in enumerate(zip(experts, keeps, strict=True))
    ]
    vote = terms[0]
    for term in terms[1:]:
        vote = vote + term
    if not elect:
        out.copy_(origin + vote / divisor_of_sum * strength)
        return
    sign = torch.where(vote >= 0, 1.0, -1.0)
    total, divisor = torch.zeros_like(vote), torch.zeros_like(vote)
    for member, term in enumerate(terms):
        agreeing = term * sign
        total = total + agreeing.clamp_min(0.0)
        divisor = divisor + torch.where(agreeing > 0, weights[member], 0.0)
    if normalize:
        total = total / torch.where(divisor == 0, 1.0, divisor)
    # Keep NaN visible in the result.
    out.copy_(origin + torch.where(vote.isnan(), vote, total * sign) * strength)


_VARIANTS = 256
"""Kernels of one pass at most: one for each mixture of masks, number of models and dtype. With
more, torch runs a pass step by step, a tensor for each; by default from the ninth on."""


def _fused(work: Pass, device: torch.device) -> Pass:
    """The pass itself, or on a GPU the one kernel that torch's compiler makes of it."""
    return _compiled(work) if device.type == "cuda" else work


@cache
def _compiled(work: Pass) -> Pass:
    compile_pass: Any = torch.compile  # its types lack the limit
    compiled: Any = compile_pass(work, dynamic=True, recompile_limit=_VARIANTS)
    return compiled  # type: ignore[no-any-return]
