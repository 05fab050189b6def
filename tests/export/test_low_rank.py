"""Cutting a matrix to a rank: the nearest there is, also where only a part is decomposed."""

from __future__ import annotations

import pytest
import torch

from evomerge.export import low_rank
from evomerge.export.low_rank import cut, join, nearest


def matrix(rows: int, columns: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_a_sum_is_its_factors_side_by_side() -> None:
    parts = [(0.7, matrix(6, 2), matrix(2, 5)), (-1.3, matrix(6, 3, seed=1), matrix(3, 5, seed=2))]
    joined = join([*parts, (0.0, matrix(6, 4), matrix(4, 5))], (6, 5))
    expected = sum(c * left @ right for c, left, right in parts)
    assert joined.rank == 5
    assert joined.error == 0.0
    torch.testing.assert_close(joined.left @ joined.right, expected)
    assert joined.wanted == pytest.approx(float(torch.as_tensor(expected).norm()))
    assert join([], (6, 5)).left.shape == (6, 0)


def test_a_product_is_cut_without_its_matrix() -> None:
    whole = join([(1.0, matrix(40, 9), matrix(9, 30, seed=1))], (40, 30))
    shorter = cut(whole, 4)
    values = torch.linalg.svdvals(whole.left @ whole.right)
    missed = (whole.left @ whole.right - shorter.left @ shorter.right).norm()
    assert shorter.rank == 4
    assert float(missed) == pytest.approx(float(values[4:].norm()), rel=1e-4)
    assert shorter.missed == pytest.approx(float(missed), rel=1e-4)
    assert cut(whole, 9) is whole


@pytest.mark.parametrize("whole", [True, False])
def test_the_nearest_matrix_leaves_the_smallest_singular_values(
    monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """Leading directions by iteration: within 1% of the least error for a slow spectrum."""
    monkeypatch.setattr(low_rank, "_WHOLE_SVD", 1024 if whole else 32)
    wanted = matrix(150, 120) * torch.logspace(0, -1.5, 120)
    least = float(torch.linalg.svdvals(wanted)[10:].norm())
    torch.manual_seed(1)
    found = nearest(wanted, 10)
    torch.manual_seed(2)
    again = nearest(wanted, 10)
    missed = float((wanted - found.left @ found.right).norm())
    assert found.missed == pytest.approx(missed, rel=1e-4)
    assert least * 0.9999 <= missed <= least * (1.0001 if whole else 1.01)
    assert torch.equal(found.left, again.left), "no global generator is drawn from"


def test_a_rank_above_a_matrix_is_its_full_rank() -> None:
    found = nearest(matrix(8, 3), 5)
    assert found.rank == 3
    assert found.error < 1e-6
