"""Matrices of low rank: sums of adapters' changes, and the nearest matrix of a given rank.

Decompositions run on one thread and start from a fixed seed, so equal inputs give equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evomerge.deferred import torch
from evomerge.merge import one_thread

_WHOLE_SVD = 1024
"""The smaller side up to which a matrix is decomposed in full; larger ones by subspace iteration.

A full decomposition of 1024 x 1024 numbers takes a third of a second on one core, and eight times
as long for twice the size.
"""

_MORE_DIRECTIONS = 16
_ITERATIONS = 4
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """left · right, float32, instead of a wanted matrix. left: (rows, r). right: (r, columns).

    wanted, missed: Frobenius norms of the wanted matrix, and of it minus left · right; missed is
    0 where the two are equal up to rounding.
    """

    left: torch.Tensor
    right: torch.Tensor
    wanted: float
    missed: float = 0.0

    @property
    def rank(self) -> int:
        """The number of columns of `left`."""
        return self.left.shape[1]

    @property
    def error(self) -> float:
        """The relative error in the Frobenius norm."""
        return self.missed / self.wanted if self.wanted else 0.0


def join(
    parts: Sequence[tuple[float, torch.Tensor, torch.Tensor]], shape: Sequence[int]
) -> LowRank:
    """Σ c · left · right of (c, left, right), by putting the factors side by side.

    The numbers c are multiplied into the left factors; parts with c = 0 are left out.
    """
    kept = [(c, left.float(), right.float()) for c, left, right in parts if c != 0.0]
    left = torch.cat([torch.zeros(shape[0], 0), *(left * c for c, left, _ in kept)], dim=1)
    right = torch.cat([torch.zeros(0, shape[1]), *(right for _, _, right in kept)])
    with one_thread():
        wanted = _norm(left, right)
    return LowRank(left=left.contiguous(), right=right.contiguous(), wanted=wanted)


def cut(whole: LowRank, rank: int) -> LowRank:
    """The nearest matrix of a lower rank, through the small core between both factors."""
    if whole.rank <= rank:
        return whole
    with one_thread():
        rows, left = torch.linalg.qr(whole.left.double())
        columns, right = torch.linalg.qr(whole.right.T.double())
        u, s, vt = torch.linalg.svd(left @ right.T, full_matrices=False)
    return LowRank(
        **_factors(rows @ u, s, vt @ columns.T, rank),
        wanted=whole.wanted,
        missed=float(s[rank:].norm()),
    )


def nearest(matrix: torch.Tensor, rank: int) -> LowRank:
    """The nearest matrix of at most this rank (Eckart, Young 1936); matrix: float32.

    Where the matrix is large, the leading directions come from four subspace iterations with
    16 directions more (Halko et al. 2011, algorithm 4.4). The error is measured in both cases.
    """
    rank = min(rank, *matrix.shape)
    with one_thread():
        if min(matrix.shape) <= max(_WHOLE_SVD, 2 * rank):
            u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        else:
            u, s, vt = _leading(matrix, rank + _MORE_DIRECTIONS)
        factors = _factors(u, s, vt, rank)
        missed = matrix - factors["left"] @ factors["right"]
        return LowRank(
            **factors,
            wanted=float(matrix.double().norm()),
            missed=float(missed.double().norm()),
        )


def _leading(matrix: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(_SEED)
    start = torch.randn(matrix.shape[1], count, generator=generator)
    basis = torch.linalg.qr(matrix @ start).Q
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    u, s, vt = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return basis @ u, s, vt


def _factors(
    u: torch.Tensor, s: torch.Tensor, vt: torch.Tensor, rank: int
) -> dict[str, torch.Tensor]:
    """Both factors get the square root of each singular value, so that they are alike in size."""
    roots = s[:rank].sqrt()
    left, right = u[:, :rank] * roots, vt[:rank] * roots[:, None]
    return {"left": left.float().contiguous(), "right": right.float().contiguous()}


def _norm(left: torch.Tensor, right: torch.Tensor) -> float:
    """The Frobenius norm of left · right, without making it; not finite if a factor is not."""
    products = (left.T.double() @ left.double()) * (right.double() @ right.T.double())
    return math.sqrt(float(products.sum().clamp(min=0.0)))
