"""Isotropic merging and task singular vectors, against what they promise and as published."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from evomerge.errors import EvomergeError
from evomerge.merge.methods.base import Method
from evomerge.merge.methods.singular_values import ISO_C, TSV, decorrelate_task_matrices
from tests.merge.tensor_inputs import FLOAT32, TensorInputs, merged, normal, run


class TestIsoC:
    @pytest.mark.parametrize("shape", [(9, 6), (6, 9), (7, 7)])
    def test_all_singular_values_are_their_mean(self, shape: tuple[int, int]) -> None:
        base, a, b = (normal(i, *shape) for i in (1, 2, 3))
        result = run(ISO_C, [base, a, b], weights=[0, 0.4, 0.9], base=0, **{"lambda": 1.5})
        total = 0.4 * (a - base) + 0.9 * (b - base)
        u, s, vt = torch.linalg.svd(total.double(), full_matrices=False)
        flattened = torch.linalg.svdvals((result - base).double())
        torch.testing.assert_close(
            flattened, torch.full_like(flattened, 1.5 * float(s.mean())), atol=FLOAT32, rtol=0
        )
        wanted = base.double() + 1.5 * s.mean() * u @ vt
        torch.testing.assert_close(result.double(), wanted, atol=FLOAT32, rtol=0)

    def test_directions_that_nothing_was_learnt_in_stay_untouched(self) -> None:
        base = normal(1, 20, 30)
        left, right = normal(2, 20, 3), normal(3, 3, 30)
        expert = base + left @ right  # as an adapter of rank 3
        result = run(ISO_C, [base, expert], weights=[0, 1], base=0)
        change = (result - base).double()
        values = torch.linalg.svdvals(change)
        learnt = torch.linalg.svdvals((left @ right).double())[:3]
        torch.testing.assert_close(
            values[:3], torch.full_like(learnt, float(learnt.mean())), atol=1e-4, rtol=0
        )
        assert values[3:].max() < 1e-4
        basis = torch.linalg.qr(left.double()).Q
        torch.testing.assert_close(basis @ (basis.T @ change), change, atol=1e-4, rtol=0)

    @pytest.mark.parametrize("method", [ISO_C, TSV])
    @pytest.mark.parametrize("shape", [(12,), (3, 4, 2)])
    def test_other_tensors_take_the_mean_of_the_task_vectors(
        self, method: Method, shape: tuple[int, ...]
    ) -> None:
        base, a, b = (normal(i, *shape) for i in (1, 2, 3))
        result = run(method, [a, base, b], weights=[0.4, 0, 0.9], base=1, **{"lambda": 0.7})
        wanted = base + 0.7 * (0.4 * (a - base) + 0.9 * (b - base)) / 2
        torch.testing.assert_close(result, wanted, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("method", [ISO_C, TSV])
    def test_nothing_learnt_is_the_base(self, method: Method) -> None:
        base = normal(1, 8, 6)
        result = run(method, [base, base, base.clone()], weights=[0, 1, 1], base=0)
        assert torch.equal(result, base)
        result = run(method, [base, normal(2, 8, 6), normal(3, 8, 6)], weights=[0, 0, 0], base=0)
        assert torch.equal(result, base)

    @pytest.mark.parametrize("method", [ISO_C, TSV])
    def test_what_is_not_finite_is_refused_in_a_line(self, method: Method) -> None:
        base, a = normal(1, 8, 6), normal(2, 8, 6)
        broken = a.clone()
        broken[0, 0] = torch.nan
        with pytest.raises(EvomergeError, match="its task vectors hold NaN"):
            run(method, [base, a, broken], weights=[0, 1, 1], base=0)


def published_tsv(deltas: Sequence[torch.Tensor]) -> torch.Tensor:
    """The published procedure, in float64: truncate, lay side by side, orthogonalise, multiply."""
    each = min(deltas[0].shape) // len(deltas)
    parts = [torch.linalg.svd(delta.double(), full_matrices=False) for delta in deltas]
    u = torch.cat([u[:, :each] for u, _, _ in parts], dim=1)
    s = torch.cat([s[:each] for _, s, _ in parts])
    v = torch.cat([vt[:each] for _, _, vt in parts], dim=0)
    p, _, q = torch.linalg.svd(u, full_matrices=False)
    a, _, b = torch.linalg.svd(v, full_matrices=False)
    return torch.linalg.multi_dot([p, q, torch.diag(s), a, b])


class TestTsv:
    @pytest.mark.parametrize("shape", [(12, 9), (9, 12), (10, 10)])
    @pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.3, 1.1, 0.6), (0.5, -0.7, 0.2)])
    def test_it_is_the_published_procedure_on_weighted_task_matrices(
        self, shape: tuple[int, int], weights: tuple[float, ...]
    ) -> None:
        base, *experts = (normal(i, *shape) for i in range(1, 5))
        result = run(TSV, [base, *experts], weights=[0, *weights], base=0, **{"lambda": 0.8})
        deltas = [w * (e - base) for w, e in zip(weights, experts, strict=True)]
        wanted = base.double() + 0.8 * published_tsv(deltas)
        # The gaps between the random matrices' singular values are above 1e-2 of them.
        torch.testing.assert_close(result.double(), wanted, atol=1e-4, rtol=0)

    def test_experts_of_different_directions_do_not_mix(self) -> None:
        base = normal(1, 12, 10)
        left, right = (torch.linalg.qr(normal(i, n, 6)).Q for i, n in ((2, 12), (3, 10)))
        first = left[:, :3] @ torch.diag(torch.tensor([3.0, 2, 1])) @ right[:, :3].T
        second = left[:, 3:] @ torch.diag(torch.tensor([5.0, 4, 2])) @ right[:, 3:].T
        result = run(TSV, [base + first, base + second, base], weights=[0.5, 0.2, 0], base=2)
        wanted = base + 0.5 * first + 0.2 * second
        torch.testing.assert_close(result, wanted, atol=FLOAT32, rtol=0)

    def test_the_factors_are_orthogonal(self) -> None:
        tensors = [normal(i, 16, 11) for i in (1, 2, 3)]
        inputs = TensorInputs(tensors, {"lambda": 1.0}, [0, 1, 1], base=0)
        first, second = torch.from_numpy(decorrelate_task_matrices(inputs)).double()
        torch.testing.assert_close(
            first.T @ second, torch.zeros(11, 11).double(), atol=1e-4, rtol=0
        )
        torch.testing.assert_close(
            first @ second.T, torch.zeros(16, 16).double(), atol=1e-4, rtol=0
        )
        for part, tensor in ((first, tensors[1]), (second, tensors[2])):
            learnt = torch.linalg.svdvals((tensor - tensors[0]).double())[:5]
            torch.testing.assert_close(torch.linalg.svdvals(part)[:5], learnt, atol=1e-4, rtol=0)

    def test_a_search_decomposes_once(self) -> None:
        tensors = [normal(i, 16, 11) for i in (1, 2, 3)]
        inputs = TensorInputs(tensors, {"lambda": 1.0}, [0, 1, 1], base=0)
        merged(TSV, inputs)
        inputs.weights, inputs.values = [0, 0.2, 0.7], {"lambda": 2.0}
        again = merged(TSV, inputs)
        assert inputs.facts_made == 1
        fresh = run(TSV, tensors, weights=[0, 0.2, 0.7], base=0, **{"lambda": 2.0})
        assert torch.equal(again, fresh)

    def test_an_adapter_pushes_no_more_than_its_own_directions_aside(self) -> None:
        """Beside an expert of full rank, one of rank 2 takes part with two directions."""
        base = normal(1, 20, 20)
        full = normal(2, 20, 20)
        low = normal(3, 20, 2) @ normal(4, 2, 20)
        inputs = TensorInputs([base, base + full, base + low], {"lambda": 1.0}, [0, 1, 1], base=0)
        parts = torch.from_numpy(decorrelate_task_matrices(inputs)).double()
        assert int(torch.linalg.matrix_rank(parts[0], rtol=1e-4)) == 10
        assert int(torch.linalg.matrix_rank(parts[1], rtol=1e-4)) == 2

    def test_a_matrix_too_small_for_its_experts_takes_the_mean(self) -> None:
        base, a, b = (normal(i, 1, 12) for i in (1, 2, 3))
        result = run(TSV, [base, a, b], weights=[0, 1, 1], base=0)
        torch.testing.assert_close(result, (a + b) / 2, atol=1e-6, rtol=0)
