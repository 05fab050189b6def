"""Methods with statistics, each against what it should compute and another way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import EvomergeError
from evomerge.merge.methods.base import Method
from evomerge.merge.methods.fisher import FISHER, GRADIENT_MATCHING
from evomerge.merge.methods.regmean import REGMEAN
from evomerge.merge.methods.singular_values import ISO_C, TSV
from tests.merge.tensor_inputs import FLOAT32, Stats, informations, normal, run


class TestFisher:
    def test_it_merges_gaussians_into_their_product(self) -> None:
        # N(a, 1/p) · N(b, 1/q) is a Gaussian of mean (pa + qb) / (p + q).
        a, b = torch.tensor([2.0, -1.0]), torch.tensor([5.0, 3.0])
        p, q = torch.tensor([3.0, 0.5]), torch.tensor([1.0, 4.0])
        result = run(FISHER, [a, b], weights=[1, 1], statistics=informations(p, q), normalize=False)
        torch.testing.assert_close(result, torch.tensor([11 / 4, 11.5 / 4.5]), atol=1e-6, rtol=0)

    @given(
        weights=st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3),
        normalize=st.booleans(),
        seed=st.integers(0, 99),
    )
    def test_it_is_the_published_formula(
        self, weights: list[float], normalize: bool, seed: int
    ) -> None:
        tensors = [normal(seed + i, 5, 7) for i in range(3)]
        fishers = [normal(seed + 10 + i, 5, 7).square() * 10.0**-i for i in range(3)]
        result = run(
            FISHER,
            tensors,
            weights=weights,
            statistics=informations(*fishers),
            normalize=normalize,
        )
        total = weighted = torch.zeros(5, 7, dtype=torch.float64)
        for weight, tensor, fisher in zip(weights, tensors, fishers, strict=True):
            share = fisher.double().clamp_min(1e-6 * float(fisher.mean())) * weight
            share = share / float(fisher.norm()) if normalize else share
            total, weighted = total + share, weighted + share * tensor
        torch.testing.assert_close(result.double(), weighted / total, atol=FLOAT32, rtol=0)

    def test_by_default_only_the_shape_of_a_fisher_counts(self) -> None:
        tensors = [normal(1, 40), normal(2, 40)]
        f, g = normal(3, 40).square(), normal(4, 40).square()
        results = [
            run(FISHER, tensors, weights=[0.3, 0.7], statistics=informations(f, scale * g))
            for scale in (1.0, 1e4)
        ]
        torch.testing.assert_close(*results, atol=FLOAT32, rtol=0)
        unscaled = run(
            FISHER,
            tensors,
            weights=[0.3, 0.7],
            statistics=informations(f, 1e4 * g),
            normalize=False,
        )
        assert (unscaled - results[0]).abs().max() > 0.1

    def test_equal_informations_give_the_average(self) -> None:
        a, b, f = normal(1, 30), normal(2, 30), normal(3, 30).square()
        result = run(FISHER, [a, b], weights=[1, 3], statistics=informations(f, f))
        torch.testing.assert_close(result, 0.25 * a + 0.75 * b, atol=FLOAT32, rtol=0)

    def test_what_no_text_depends_on_is_averaged_by_the_weights(self) -> None:
        a, b, none = normal(1, 30), normal(2, 30), torch.zeros(30)
        average = 0.25 * a + 0.75 * b
        for statistics in (informations(none, none), informations(none, None), {}):
            result = run(FISHER, [a, b], weights=[1, 3], statistics=statistics)
            torch.testing.assert_close(result, average, atol=FLOAT32, rtol=0)

    def test_embeddings_with_more_rows_than_were_calibrated_are_averaged(self) -> None:
        a, b, f = normal(1, 6, 4), normal(2, 6, 4), normal(3, 6, 4).square()
        statistics = informations(f, normal(4, 5, 4).square())
        result = run(FISHER, [a, b], weights=[1, 3], statistics=statistics)
        torch.testing.assert_close(result, 0.25 * a + 0.75 * b, atol=FLOAT32, rtol=0)

    def test_an_element_that_only_one_model_uses_is_that_models(self) -> None:
        a, b = normal(1, 8), normal(2, 8)
        f = torch.tensor([0.0, 1, 1, 1, 1, 1, 1, 1])
        g = torch.ones(8)
        result = run(FISHER, [a, b], weights=[1, 1], statistics=informations(f, g))
        # The floor of 1e-6 of the mean is all that the first model has to say there.
        assert abs(float(result[0] - b[0])) < 2e-6 * abs(float(a[0] - b[0])) + 1e-7

    def test_one_model_alone_is_returned_to_the_bit(self) -> None:
        a, b, f = normal(1, 30), normal(2, 30), normal(3, 30).square()
        result = run(FISHER, [a, b], weights=[0, 0.3], statistics=informations(f, f))
        assert torch.equal(result, b)
        result = run(FISHER, [a, a], weights=[0.2, 0.7], statistics=informations(f, 3 * f.flip(0)))
        assert torch.equal(result, a)

    def test_no_weight_at_all_is_refused(self) -> None:
        with pytest.raises(EvomergeError, match=r"every weight of .* is 0"):
            run(FISHER, [normal(1, 4), normal(2, 4)], weights=[0, 0])


class TestGradientMatching:
    @given(
        weights=st.lists(st.floats(0.01, 1.5), min_size=2, max_size=2),
        prior=st.sampled_from([0.0, 0.3]),
        seed=st.integers(0, 99),
    )
    def test_it_is_the_published_formula(
        self, weights: list[float], prior: float, seed: int
    ) -> None:
        base, *experts = [normal(seed + i, 6, 5) for i in range(3)]
        h0, *hs = [normal(seed + 10 + i, 6, 5).square() for i in range(3)]
        result = run(
            GRADIENT_MATCHING,
            [*experts, base],
            weights=[*weights, 0],
            base=2,
            statistics=informations(*hs, h0),
            prior=prior,
        )
        floored = [h.double().clamp_min(1e-6 * float(h.mean())) for h in (h0, *hs)]
        first, others = floored[0] + prior, floored[1:]
        total = first + sum(w * h for w, h in zip(weights, others, strict=True))
        wanted = base.double()
        for weight, expert, h in zip(weights, experts, others, strict=True):
            wanted = wanted + weight * (first + h) / total * (expert.double() - base.double())
        # The factor reaches (H₀ + H)/(H₀ + wH) = 1/w = 100 times the differences.
        torch.testing.assert_close(result.double(), wanted, atol=10 * FLOAT32, rtol=FLOAT32)

    def test_one_expert_of_weight_one_is_that_expert(self) -> None:
        base, expert = normal(1, 50), normal(2, 50)
        result = run(
            GRADIENT_MATCHING,
            [base, expert],
            weights=[0, 1],
            base=0,
            statistics=informations(normal(3, 50).square(), normal(4, 50).square()),
        )
        torch.testing.assert_close(result, expert, atol=1e-6, rtol=0)

    def test_without_curvature_it_is_task_arithmetic(self) -> None:
        base, a, b = normal(1, 50), normal(2, 50), normal(3, 50)
        none, some = torch.zeros(50), torch.ones(50)
        wanted = base + 0.3 * (a - base) + 0.9 * (b - base)
        for statistics, prior in (
            ({}, 0.0),
            (informations(none, some, None), 0.0),
            (informations(none, none, none), 0.0),
            (informations(some, some, some), 1e9),
        ):
            result = run(
                GRADIENT_MATCHING,
                [base, a, b],
                weights=[0, 0.3, 0.9],
                base=0,
                statistics=statistics,
                prior=prior,
            )
            torch.testing.assert_close(result, wanted, atol=FLOAT32, rtol=0)

    def test_no_weight_at_all_is_the_base(self) -> None:
        base, expert = normal(1, 50), normal(2, 50)
        result = run(GRADIENT_MATCHING, [base, expert], weights=[0, 0], base=0)
        assert torch.equal(result, base)


def layers(*grams: torch.Tensor, axis: int = 1) -> Stats:
    return {"inputs": grams, "input_axis": [torch.tensor(axis)] * len(grams)}


def shares_of(weights: Sequence[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


class TestRegMean:
    INPUTS, OUTPUTS = 6, 4

    def problem(self, rows: int = 50) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Inputs with correlated features, and a linear layer (out, in), of three models."""
        xs = [
            normal(i, rows, self.INPUTS) @ normal(9 + i, self.INPUTS, self.INPUTS)
            for i in (1, 2, 3)
        ]
        return xs, [normal(20 + i, self.OUTPUTS, self.INPUTS) for i in (1, 2, 3)]

    def test_it_is_the_least_squares_optimum(self) -> None:
        xs, ws = self.problem()
        weights = [0.2, 0.5, 0.9]
        result = run(
            REGMEAN, ws, weights=weights, statistics=layers(*[x.T @ x for x in xs]), alpha=1.0
        )
        # min Σ w ‖XW - XWᵢ‖², solved on the stacked rows themselves.
        rows = torch.cat([x * w**0.5 for x, w in zip(xs, weights, strict=True)]).double()
        answers = torch.cat(
            [x @ layer.T * w**0.5 for x, layer, w in zip(xs, ws, weights, strict=True)]
        ).double()
        optimum = torch.linalg.lstsq(rows, answers).solution.T
        # Grams are stored in float32; the rows' condition number, squared, is below 1e3.
        torch.testing.assert_close(result.double(), optimum, atol=1e-4, rtol=0)

    @pytest.mark.parametrize("axis", [0, 1])
    @pytest.mark.parametrize("alpha", [0.0, 0.9])
    def test_it_is_the_published_formula(self, alpha: float, axis: int) -> None:
        xs, ws = self.problem()
        weights = [0.2, 0.5, 0.9]
        grams = [x.T @ x / len(x) for x in xs]
        stored = ws if axis == 1 else [w.T.contiguous() for w in ws]
        result = run(
            REGMEAN, stored, weights=weights, statistics=layers(*grams, axis=axis), alpha=alpha
        )
        total, wanted = np.zeros((6, 6)), np.zeros((6, 4))
        for gram, layer, weight in zip(grams, ws, weights, strict=True):
            g = gram.double().numpy()
            reduced = alpha * g + (1 - alpha) * np.diag(np.diag(g))
            total += weight * reduced
            wanted += weight * reduced @ layer.double().numpy().T
        solution = torch.from_numpy(np.linalg.solve(total, wanted))
        expected = solution.T if axis == 1 else solution
        torch.testing.assert_close(result.double(), expected, atol=FLOAT32, rtol=0)

    def test_a_square_weight_is_read_the_way_its_layer_stores_it(self) -> None:
        xs = [normal(i, 40, 5) @ normal(9 + i, 5, 5) for i in (1, 2)]
        grams = [x.T @ x for x in xs]
        ws = [normal(3, 5, 5), normal(4, 5, 5)]
        as_linear = run(REGMEAN, ws, weights=[1, 1], statistics=layers(*grams))
        as_conv = run(
            REGMEAN,
            [w.T.contiguous() for w in ws],
            weights=[1, 1],
            statistics=layers(*grams, axis=0),
        )
        torch.testing.assert_close(as_linear, as_conv.T, atol=1e-6, rtol=0)
        wrong = run(REGMEAN, ws, weights=[1, 1], statistics=layers(*grams, axis=0))
        assert (wrong - as_linear).abs().max() > 0.1

    def test_an_input_that_is_always_zero_leaves_the_average(self) -> None:
        xs, ws = self.problem()
        for x in xs:
            x[:, 2] = 0
        average = sum(s * w for s, w in zip(shares_of([1, 2, 3]), ws, strict=True))
        for alpha in (0.9, 1.0):
            result = run(
                REGMEAN,
                ws,
                weights=[1, 2, 3],
                statistics=layers(*[x.T @ x for x in xs]),
                alpha=alpha,
            )
            torch.testing.assert_close(result[:, 2], average[:, 2], atol=FLOAT32, rtol=0)
            assert (result - average).abs().max() > 0.1, "the other inputs are solved for"

    def test_fewer_rows_than_inputs_are_answered_exactly_and_nothing_else_changes(self) -> None:
        xs = [normal(1, 3, self.INPUTS), normal(2, 2, self.INPUTS)]
        ws = [normal(3, self.OUTPUTS, self.INPUTS), normal(4, self.OUTPUTS, self.INPUTS)]
        grams = layers(*[x.T @ x for x in xs])
        result = run(REGMEAN, ws, weights=[1, 1], statistics=grams, alpha=1.0)
        for x, layer in zip(xs, ws, strict=True):
            torch.testing.assert_close(x @ result.T, x @ layer.T, atol=1e-4, rtol=0)
        scale = sum(x.square().sum(dim=0) for x in xs).sqrt()  # of each input over all rows
        unseen = torch.linalg.svd(torch.cat(xs) / scale).Vh[-1]  # no row says anything of it
        change = (result - (ws[0] + ws[1]) / 2) * scale
        torch.testing.assert_close(change @ unseen, torch.zeros(self.OUTPUTS), atol=1e-4, rtol=0)

    def test_what_is_no_linear_layer_everywhere_is_averaged(self) -> None:
        a, b = normal(1, 4, 6), normal(2, 4, 6)
        gram = torch.eye(6)
        for statistics in (
            {},
            layers(gram, None),
            {**layers(gram, gram), "input_axis": [None, None]},
        ):  # type: ignore[arg-type]
            result = run(REGMEAN, [a, b], weights=[1, 3], statistics=statistics)
            torch.testing.assert_close(result, 0.25 * a + 0.75 * b, atol=1e-6, rtol=0)

    def test_one_model_alone_is_returned_to_the_bit(self) -> None:
        xs, ws = self.problem()
        grams = [x.T @ x for x in xs]
        result = run(REGMEAN, ws, weights=[0, 0.4, 0], statistics=layers(*grams))
        assert torch.equal(result, ws[1])
        result = run(REGMEAN, [ws[0]] * 3, weights=[1, 2, 3], statistics=layers(*grams))
        assert torch.equal(result, ws[0])

    def test_statistics_that_are_not_finite_are_refused_in_a_line(self) -> None:
        xs, ws = self.problem()
        grams = [x.T @ x for x in xs]
        grams[1][0, 0] = torch.inf
        with pytest.raises(EvomergeError, match="not finite; calibrate with other text"):
            run(REGMEAN, ws, weights=[1, 1, 1], statistics=layers(*grams))

    def test_no_weight_at_all_is_refused(self) -> None:
        with pytest.raises(EvomergeError, match=r"every weight of .* is 0"):
            run(REGMEAN, [normal(1, 4), normal(2, 4)], weights=[0, 0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", [FISHER, REGMEAN, GRADIENT_MATCHING, ISO_C, TSV])
def test_the_result_is_rounded_once_to_the_storage_dtype(
    method: Method, dtype: torch.dtype
) -> None:
    tensors = [normal(i, 12, 8).to(dtype) for i in (1, 2, 3)]
    fishers = [normal(i, 12, 8).square() for i in (4, 5, 6)]
    grams = [normal(i, 40, 8) for i in (7, 8, 9)]
    statistics = {**informations(*fishers), **layers(*[x.T @ x for x in grams])}
    given = {
        "weights": [0.3, 0.5, 0.7],
        "base": 0 if method.needs_base else None,
        "statistics": statistics,
    }
    rounded = run(method, tensors, dtype=dtype, **given)  # type: ignore[arg-type]
    whole = run(method, [tensor.float() for tensor in tensors], **given)  # type: ignore[arg-type]
    assert torch.equal(rounded, whole.to(dtype))


@pytest.mark.parametrize("method", [FISHER, REGMEAN, GRADIENT_MATCHING, ISO_C, TSV])
def test_the_bytes_do_not_depend_on_the_number_of_threads(method: Method) -> None:
    tensors = [normal(i, 300, 260) for i in (1, 2, 3)]
    rows = [normal(i, 400, 260) for i in (7, 8, 9)]
    statistics = {
        **informations(*(tensor.square() for tensor in tensors)),
        **layers(*(x.T @ x for x in rows)),
    }
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            base = 0 if method.needs_base else None
            results.append(
                run(method, tensors, weights=[0.3, 0.5, 0.7], base=base, statistics=statistics)
            )
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
