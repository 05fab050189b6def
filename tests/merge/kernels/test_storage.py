"""Elements between the stored dtypes and float32, as torch converts them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.merge.kernels import weighted_sum

ONE = np.array([1.0])


def converted(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The elements as a kernel reads them and writes them in another dtype."""
    out = torch.empty(tensor.shape, dtype=dtype)
    weighted_sum([tensor], ONE, out)
    return out


def same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Equal values, and NaN where NaN is."""
    return bool(((ours == theirs) | (ours.isnan() & theirs.isnan())).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_value_of_two_bytes_is_read_as_torch_reads_it(dtype: torch.dtype) -> None:
    everything = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    assert same(converted(everything, torch.float32), everything.float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_values_are_rounded_as_torch_rounds_them(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(400_000, generator=generator) * torch.exp(
        9 * torch.randn(400_000, generator=generator)
    )
    # Halfway between neighbours, the largest finite values, and what is no number.
    halfway = torch.arange(2**15, dtype=torch.int32).to(torch.int16).view(dtype).float()
    halfway = (halfway[:-1] + halfway[1:]) / 2
    edges = torch.tensor([0.0, -0.0, 65504.0, 65519.99, 65520.0, 3.4e38, torch.inf, -torch.inf])
    values = torch.cat([wide, halfway, edges, torch.tensor([torch.nan])])
    assert same(converted(values, dtype), values.to(dtype))


def test_sources_of_several_dtypes_are_read_each_in_its_own() -> None:
    tensors = [torch.randn(3000), torch.randn(3000).bfloat16(), torch.randn(3000).half()]
    out = torch.empty(3000)
    weighted_sum(tensors, np.array([0.3, 0.5, 0.7]), out)
    expected = tensors[0] * np.float32(0.3)
    expected = expected + tensors[1].float() * np.float32(0.5)
    expected = expected + tensors[2].float() * np.float32(0.7)
    assert torch.equal(out, expected)
