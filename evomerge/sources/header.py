"""The header of a safetensors file: its list of tensors, checked before any tensor is read."""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from evomerge.documents import is_deeper
from evomerge.errors import SourceError

_LARGEST_HEADER_BYTES = 100_000_000  # the format's own limit
_LARGEST_DIMENSION = 2**48
_DTYPES: Mapping[str, tuple[str, int]] = {
    "F64": ("float64", 64),
    "F32": ("float32", 32),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "F8_E4M3": ("float8_e4m3fn", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E8M0": ("float8_e8m0fnu", 8),
    "I64": ("int64", 64),
    "I32": ("int32", 32),
    "I16": ("int16", 16),
    "I8": ("int8", 8),
    "U64": ("uint64", 64),
    "U32": ("uint32", 32),
    "U16": ("uint16", 16),
    "U8": ("uint8", 8),
    "BOOL": ("bool", 8),
}
"""The format's dtype names -> (torch's name, bits of a value). Newer dtypes keep their names."""

FORMAT_NAMES: Mapping[str, str] = {name: written for written, (name, _) in _DTYPES.items()}
"""torch's names of dtypes -> the format's."""

ITEM_BYTES: Mapping[str, int] = {name: bits // 8 for name, bits in _DTYPES.values()}
"""torch's names of dtypes -> bytes of a value."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor in its file's header. start: of its bytes, from the file's beginning."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size_bytes: int


def read_entries(file: Path, named: str) -> dict[str, Entry]:
    """Tensor name -> its entry in the header of a safetensors file, in the order of the data.

    The header is an 8-byte little-endian length and JSON of that length; the data follow without
    gaps. Raises SourceError for a damaged file; it names the tensor and the field if one is at
    fault.
    """
    where = f"{named}: {file.name}"
    damaged = SourceError(f"{where} is empty, cut short or damaged; get it again")
    try:
        size_bytes = file.stat().st_size
        with file.open("rb") as stream:
            (header_bytes,) = struct.unpack("<Q", stream.read(8))
            if header_bytes > min(size_bytes - 8, _LARGEST_HEADER_BYTES):
                raise damaged
            header = json.loads(stream.read(header_bytes), object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError, struct.error) as error:
        raise damaged from error
    if isinstance(header, _Twice):
        raise SourceError(f"{where}: its header names {header.key} twice; get it again")
    if not isinstance(header, dict):
        raise damaged
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(
        isinstance(text, str) for text in metadata.values()
    ):
        raise SourceError(
            f"{where}: __metadata__ of its header is not a mapping of texts, so nothing loads it; "
            "get it again"
        )
    first = 8 + header_bytes
    found = [_entry(file, name, fields, first, where) for name, fields in header.items()]
    found.sort(key=lambda named_entry: (named_entry[1].start, named_entry[1].size_bytes))
    if not found or found[0][1].start != first:
        raise damaged
    for (before, a), (name, b) in pairwise(found):
        if a.start + a.size_bytes != b.start:
            how = "overlap" if a.start + a.size_bytes > b.start else "leave a gap"
            raise SourceError(f"{where}: data_offsets of {before} and {name} {how}; get it again")
    last = found[-1][1]
    if size_bytes != last.start + last.size_bytes:
        raise damaged
    return dict(found)


def read_ahead(entry: Entry, mapped: mmap.mmap | None = None) -> None:
    """Ask the system to read a tensor's bytes into its cache; returns at once.

    mapped: the file, if it is mapped; it need not be opened then.
    """
    if not entry.size_bytes:  # at the end of a file it has no page, and no advice on one is taken
        return
    if mapped is not None and hasattr(mmap, "MADV_WILLNEED"):
        first = entry.start - entry.start % mmap.PAGESIZE
        mapped.madvise(mmap.MADV_WILLNEED, first, entry.start + entry.size_bytes - first)
        return
    if not hasattr(os, "posix_fadvise"):  # macOS has no such call and reads ahead by itself
        return
    descriptor = os.open(entry.file, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, entry.start, entry.size_bytes, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(descriptor)


class _Twice(dict[str, Any]):
    """A JSON object that has a key twice."""

    key: str


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, as `_Twice` if it has a key twice."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    keys = [key for key, _ in pairs]
    twice = _Twice(found)
    twice.key = next(key for place, key in enumerate(keys) if key in keys[:place])
    return twice


def _entry(file: Path, name: str, fields: object, first: int, where: str) -> tuple[str, Entry]:
    """One tensor. Raises SourceError that names a field with an impossible value."""

    def refuse(field: str) -> NoReturn:
        value = fields.get(field) if isinstance(fields, dict) else fields
        said = "deeply nested" if is_deeper(value) else str(value)[:60]
        raise SourceError(
            f"{where}: {field} of {name} is {said}, which is impossible; get it again"
        )

    if not isinstance(fields, dict) or isinstance(fields, _Twice):
        refuse("the entry")
    shape, offsets, dtype = (fields.get(field) for field in ("shape", "data_offsets", "dtype"))
    if not _are_counts(shape):
        refuse("shape")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        refuse("data_offsets")
    if not isinstance(dtype, str):
        refuse("dtype")
    torch_name, bits = _DTYPES.get(dtype, (dtype, None))
    size_bytes = offsets[1] - offsets[0]
    if bits is not None and math.prod(shape) * bits != 8 * size_bytes:
        refuse("data_offsets")
    return name, Entry(
        file=file,
        dtype=torch_name,
        shape=tuple(shape),
        start=first + offsets[0],
        size_bytes=size_bytes,
    )


def _are_counts(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value <= _LARGEST_DIMENSION for value in values
    )
