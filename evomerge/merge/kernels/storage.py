"""Tensors as arrays for compiled code, and conversion between stored dtypes and float32.

A kernel reads blocks from the stored dtype, works on them in float32 in the first-level cache, and
rounds the result once. The compiler has no bfloat16 and no float16, so their arrays hold the bits:
uint16 for bfloat16, int16 for float16.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numba import carray, njit, types  # type: ignore[attr-defined]
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from evomerge.deferred import torch

# Cached compiled code must match the current source files.
#
# numba caches compiled code for each file and checks that file alone, but a kernel uses functions
# from several files. So the whole cache is deleted when any of the files has changed.


_STAMP = "kernels.sha256"


def drop_stale(folder: Path) -> bool:
    """Delete numba's cache in `folder`/__pycache__ if a source changed; returns whether it did."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        digest.update(file.read_bytes())
    cache = folder / "__pycache__"
    stamp = cache / _STAMP
    with contextlib.suppress(OSError):  # a folder that cannot be written to has no cache
        if stamp.exists() and stamp.read_text() == digest.hexdigest():
            return False
        for file in cache.glob("*.nb[ic]"):
            file.unlink(missing_ok=True)
        cache.mkdir(exist_ok=True)
        stamp.write_text(digest.hexdigest())
        return True
    return False


BLOCK = 1024
"""Elements of a block: the accumulators of every kernel fit the first-level cache together."""

Flat = NDArray[Any]
"""A tensor's elements in order, shape (n,): float32, or the bits of bfloat16 or float16."""

ELEMENT_TYPES = {"bfloat16": np.uint16, "float16": np.int16, "float32": np.float32}
"""torch's name of each dtype that kernels know -> the type of its elements here."""


class Elements:
    """A tensor of a dtype that kernels know, without torch: what a process has that needs no more.

    It has those methods of a tensor that methods use which merge by kernels alone. dtype: torch's
    name. array: (n,), of its type in `ELEMENT_TYPES`.
    """

    __slots__ = ("array", "dtype", "shape")

    def __init__(self, array: Flat, dtype: str, shape: tuple[int, ...]) -> None:
        assert array.dtype == ELEMENT_TYPES[dtype]
        self.array = array
        self.dtype = dtype
        self.shape = shape

    def numel(self) -> int:
        """Number of elements."""
        return self.array.size

    def copy_(self, other: Elements) -> None:
        """Take over the elements of another, rounded to this dtype."""
        if self.dtype == other.dtype:
            self.array[:] = other.array
        else:
            _convert(other.array, self.array)

    def zero_(self) -> None:
        """Set all elements to zero."""
        self.array[:] = 0


def flat(tensor: torch.Tensor | Elements) -> Flat:
    """The elements of a contiguous CPU tensor of a dtype that kernels know; shares its memory."""
    if isinstance(tensor, Elements):
        return tensor.array
    assert tensor.is_contiguous(), "kernels read tensors without gaps"
    kind = ELEMENT_TYPES[str(tensor.dtype).removeprefix("torch.")]
    array: Flat = tensor.view(-1).view(getattr(torch, kind.__name__)).numpy()
    return array


def operands(tensors: Sequence[torch.Tensor]) -> tuple[Flat, ...]:
    """The elements of several tensors in one dtype: float32 where they are stored in several."""
    if isinstance(tensors[0], Elements):  # of one dtype each time; see `compiled.py`
        return tuple(flat(tensor) for tensor in tensors)
    dtypes = {tensor.dtype for tensor in tensors}
    if len(dtypes) > 1 or str(tensors[0].dtype).removeprefix("torch.") not in ELEMENT_TYPES:
        tensors = [tensor.float() for tensor in tensors]
    return tuple(flat(tensor.contiguous()) for tensor in tensors)


def addresses(arrays: Sequence[Flat]) -> NDArray[np.int64]:
    """Where the elements of each array are in memory. The arrays must outlive what reads there.

    Compiled code takes any number of tensors so. In a tuple, every number would be a type of its
    own, for which every kernel would be compiled again: a second or more each time.
    """
    return np.array([array.ctypes.data for array in arrays], dtype=np.int64)


@intrinsic
def _pointer(typing: Any, address: Any, like: Any) -> Any:
    """A pointer to the elements at `address`, of the dtype of `like`, in compiled code."""
    kind = types.CPointer(like.dtype)  # type: ignore[no-untyped-call]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(kind))

    return kind(address, like), generate


@njit(nogil=True, cache=True)
def elements_at(address: int, like: Flat, start: int, stop: int) -> Flat:
    """Elements `start` to `stop` of the tensor of the dtype of `like` at one of `addresses`."""
    start_of_all: Any = _pointer(address, like)  # type: ignore[call-arg]
    elements: Flat = carray(start_of_all, (stop,))[start:stop]
    return elements


def value_of(element: Any) -> np.float32:
    """An element of a `Flat` as float32, in compiled code."""
    raise NotImplementedError("exists in compiled code only")


def stored_as(array: Flat, value: np.float32) -> Any:
    """A float32 as an element of `array`: to nearest, ties to even, as torch rounds. Compiled."""
    raise NotImplementedError("exists in compiled code only")


@overload(value_of)
def _value_of(element: Any) -> Any:
    if element == types.uint16:
        return _from_bfloat16
    if element == types.int16:
        return _from_float16
    return _same


@overload(stored_as)
def _stored_as(array: Any, value: Any) -> Any:
    if array.dtype == types.uint16:
        return _to_bfloat16
    if array.dtype == types.int16:
        return _to_float16
    return _as_it_is


def _same(element: Any) -> Any:
    return element


def _as_it_is(array: Any, value: Any) -> Any:
    return value


def _from_bfloat16(element: Any) -> Any:
    return np.uint32(np.uint32(element) << np.uint32(16)).view(np.float32)


def _to_bfloat16(array: Any, value: Any) -> Any:
    bits = np.float32(value).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.uint16(rounded if value == value else np.uint32(0x7FC0))


def _from_float16(element: Any) -> Any:
    bits = np.uint32(np.uint16(element))
    magnitude = np.uint32((bits & np.uint32(0x7FFF)) << np.uint32(13))
    # The exponent is 112 less than float32's; multiplying also sets subnormals right.
    finite = magnitude.view(np.float32) * np.float32(2.0**112)
    special = np.uint32(magnitude | np.uint32(0x7F800000)).view(np.float32)
    value = special if magnitude >= np.uint32(0x0F800000) else finite
    sign = np.uint32((bits & np.uint32(0x8000)) << np.uint32(16))
    return np.uint32(np.float32(value).view(np.uint32) | sign).view(np.float32)


def _to_float16(array: Any, value: Any) -> Any:
    bits = np.float32(value).view(np.uint32)
    magnitude = np.uint32(bits & np.uint32(0x7FFFFFFF))
    odd = (magnitude >> np.uint32(13)) & np.uint32(1)
    normal = np.uint32(magnitude - np.uint32(0x38000000) + np.uint32(0xFFF) + odd) >> np.uint32(13)
    # Below 2**-14 the sum with 0.5 has the subnormal's bits in its lowest places.
    lifted = np.float32(magnitude.view(np.float32) + np.float32(0.5)).view(np.uint32)
    small = np.uint32(lifted - np.uint32(0x3F000000))
    half = small if magnitude < np.uint32(0x38800000) else np.uint32(normal)
    half = np.uint32(0x7C00) if magnitude >= np.uint32(0x477FF000) else half
    half = np.uint32(0x7E00) if magnitude > np.uint32(0x7F800000) else half
    return np.int16(np.uint16(((bits >> np.uint32(16)) & np.uint32(0x8000)) | half))


@njit(nogil=True, cache=True)
def _convert(source: Flat, out: Flat) -> None:
    """out = source, rounded to the stored dtype."""
    for j in range(out.size):
        out[j] = stored_as(out, value_of(source[j]))


@njit(nogil=True, cache=True)
def write_block(block: NDArray[np.float32], out: Flat) -> None:
    """out = block[:out.size], rounded to the stored dtype."""
    for j in range(out.size):
        out[j] = stored_as(out, block[j])


# Every kernel imports this file, and numba reads its cache only when a kernel is first called.
drop_stale(Path(__file__).parent)
