"""Weighted sums against torch's own arithmetic, which rounds each product and sum alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.merge.kernels import blockwise, weighted_sum

SHAPES = [(1,), (1023,), (1025,), (7, 1024), (3, 70_001), (5, 3, 11)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_sums_are_torch_s_to_the_last_bit(shape: tuple[int, ...], count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    tensors = [torch.randn(shape, generator=generator).bfloat16() for _ in range(count)]
    weights = np.linspace(0.31, -0.77, count)
    expected = torch.zeros(shape)
    for tensor, weight in zip(tensors, weights, strict=True):
        expected = expected + tensor.float() * np.float32(weight)
    out = torch.empty(shape, dtype=torch.bfloat16)
    weighted_sum(tensors, weights, out)
    assert torch.equal(out, expected.bfloat16())


def test_coefficients_by_row_multiply_their_row() -> None:
    tensors = [torch.randn(130, 3, 700), torch.randn(130, 3, 700)]
    by_row = np.random.default_rng(0).normal(size=(130, 2))
    out = torch.empty(130, 3, 700)
    weighted_sum(tensors, by_row, out)
    factors = torch.tensor(by_row, dtype=torch.float32)[:, :, None, None]
    assert torch.equal(out, tensors[0] * factors[:, 0] + tensors[1] * factors[:, 1])


@pytest.mark.parametrize("rows", [False, True])
def test_any_number_of_threads_gives_the_same_bytes(rows: bool) -> None:
    tensors = [torch.randn(301, 1777) for _ in range(2)]
    weights = np.random.default_rng(0).normal(size=(301, 2)) if rows else np.array([0.3, 0.8])
    results = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        out = torch.empty(301, 1777)
        weighted_sum(tensors, weights, out)
        results.append(out)
    assert all(torch.equal(result, results[0]) for result in results)


def test_a_member_without_a_share_is_not_read() -> None:
    broken = torch.full((50,), torch.nan)
    out = torch.empty(50)
    weighted_sum([torch.ones(50), broken], np.array([0.5, 0.0]), out)
    assert torch.equal(out, torch.full((50,), 0.5))
    weighted_sum([broken], np.array([0.0]), out)
    assert torch.equal(out, torch.zeros(50))


def test_nothing_comes_of_an_empty_tensor() -> None:
    out = torch.empty(0, 4)
    weighted_sum([torch.empty(0, 4)], np.array([1.0]), out)
    assert out.shape == (0, 4)


def test_blocks_are_given_in_float32_and_written_in_the_dtype_of_the_output() -> None:
    tensors = [torch.randn(3, 90_001).bfloat16(), torch.randn(3, 90_001).half()]
    out = torch.empty(3, 90_001, dtype=torch.bfloat16)
    blockwise(lambda a, b: torch.maximum(a, b) * 3, tensors, out)
    expected = torch.maximum(tensors[0].float(), tensors[1].float()) * 3
    assert torch.equal(out, expected.bfloat16())
