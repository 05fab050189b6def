"""Failures of the machine are told from those of a candidate."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch

from evomerge.errors import is_shortage


def raised(make: object) -> Exception:
    with pytest.raises(Exception) as info:  # noqa: PT011
        make()  # type: ignore[operator]
    return info.value


def test_a_machine_that_runs_short_is_named_by_what_libraries_really_raise() -> None:
    assert is_shortage(raised(lambda: torch.empty(10**15)))
    assert is_shortage(raised(lambda: np.empty(10**16)))
    assert is_shortage(raised(lambda: [0] * 10**15))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch.AcceleratorError("CUDA error: unspecified launch failure"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("can't start new thread"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EMFILE, "Too many open files"),
        ConnectionResetError("the judge's server went away"),
    ],
    ids=str,
)
def test_a_shortage_may_pass(error: Exception) -> None:
    assert is_shortage(error)
    wrapped = ValueError("the merge failed")
    wrapped.__cause__ = error
    assert is_shortage(wrapped)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("logits are not finite"),
        OverflowError("intermediate overflow in fsum"),
        RecursionError("maximum recursion depth exceeded"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
        ValueError("no answer in: 'the server is out of memory'"),
        TimeoutError("an expression took too long"),
    ],
    ids=str,
)
def test_other_errors_are_the_candidates_own(error: Exception) -> None:
    assert not is_shortage(error)


def test_errors_that_lead_to_each_other_are_looked_at_once() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_shortage(first)
