"""Weights on disk: writes a stream of tensors into safetensors shards with their index.

A shard's header is written first, and each tensor is then written to its place in the file. So only
one tensor is in memory at a time. (The format's own library writes whole files from memory.)
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch

from evomerge.export.adapter_facts import AdapterFacts
from evomerge.export.folder import inside, write_json
from evomerge.export.running_hash import RunningHash

SHARD_BYTES = 5 * 10**9
"""Largest shard, unless one tensor alone is larger; what the Hugging Face hub recommends."""

_INDEX = "model.safetensors.index.json"
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The format's names of the dtypes in checkpoints."""


@dataclass(frozen=True, slots=True)
class Form:
    """Shape and dtype of a tensor, known before it is made."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def elements(self) -> int:
        """Number of values."""
        return torch.Size(self.shape).numel()

    @property
    def size_bytes(self) -> int:
        """Bytes of the values."""
        return self.elements * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The written weights.

    size_bytes: of the tensors, without the files' headers. notes: sentences for the user. adapter:
    what they are if they are an adapter, not a whole model. sha256: of each file, if it was hashed
    while it was written.
    """

    files: tuple[str, ...]
    tensors: int
    size_bytes: int
    notes: tuple[str, ...] = ()
    adapter: AdapterFacts | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)


def write_weights(
    stream: Iterable[tuple[str, torch.Tensor]],
    forms: Mapping[str, Form],
    folder: Path,
    *,
    shard_bytes: int,
) -> Weights:
    """Write a stream of tensors of these forms, and the index if there are several shards."""
    weight_map = shard_names({name: form.size_bytes for name, form in forms.items()}, shard_bytes)
    files = tuple(dict.fromkeys(weight_map.values()))
    with contextlib.ExitStack() as open_files:
        shards: dict[str, _Shard] = {}
        for name, tensor in stream:
            file = weight_map[name]
            if file not in shards:
                own = {
                    tensor_name: forms[tensor_name]
                    for tensor_name in forms
                    if weight_map[tensor_name] == file
                }
                handle = open_files.enter_context(inside(folder, file).open("wb"))
                shards[file] = _Shard(handle, own, RunningHash(inside(folder, file)))
                open_files.callback(shards[file].hash.stop)
            shards[file].write(name, tensor)
        assert all(shard.complete for shard in shards.values()), "a tensor is missing"
        digests = {file: shard.hash.hexdigest() for file, shard in shards.items()}
    total_bytes = sum(form.size_bytes for form in forms.values())
    if len(files) > 1:
        counts = sum(form.elements for form in forms.values())
        metadata = {"total_parameters": counts, "total_size": total_bytes}
        write_json(folder, _INDEX, {"metadata": metadata, "weight_map": weight_map}, sort=True)
    return Weights(files=files, tensors=len(weight_map), size_bytes=total_bytes, sha256=digests)


def write_file(folder: Path, name: str, tensors: Mapping[str, torch.Tensor]) -> Weights:
    """Write tensors into one file, without another copy of them in memory."""
    forms = {key: Form(tuple(tensor.shape), tensor.dtype) for key, tensor in tensors.items()}
    path = inside(folder, name)
    with path.open("wb") as handle, contextlib.ExitStack() as hashing:
        file = _Shard(handle, forms, RunningHash(path))
        hashing.callback(file.hash.stop)
        for key, tensor in tensors.items():
            file.write(key, tensor)
        digest = file.hash.hexdigest()
    return Weights(
        files=(name,),
        tensors=len(forms),
        size_bytes=sum(form.size_bytes for form in forms.values()),
        sha256={name: digest},
    )


def shard_names(sizes: Mapping[str, int], shard_bytes: int) -> dict[str, str]:
    """tensor name -> file name, in the names that transformers gives.

    Tensors stay in order, and a shard ends before it would be larger than `shard_bytes`. A larger
    tensor has its own shard.
    """
    shards: list[list[str]] = []
    filled = 0
    for name, size in sizes.items():
        if not shards or filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    if len(shards) == 1:
        return dict.fromkeys(sizes, "model.safetensors")
    return {
        name: f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        for number, names in enumerate(shards, start=1)
        for name in names
    }


class _Shard:
    """One safetensors file: 8 bytes of header length, JSON, then the tensors without gaps."""

    def __init__(self, handle: BinaryIO, forms: Mapping[str, Form], running: RunningHash) -> None:
        self.hash = running
        self._handle = handle
        self._forms = forms
        self._missing = set(forms)
        # Wide values first, as the format's library orders them, so that all are aligned.
        ordered = sorted(forms, key=lambda name: (-forms[name].dtype.itemsize, name))
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offsets: dict[str, int] = {}
        end = 0
        for name in ordered:
            form, offsets[name] = forms[name], end
            end += form.size_bytes
            header[name] = {
                "dtype": _NAMES[form.dtype],
                "shape": list(form.shape),
                "data_offsets": [offsets[name], end],
            }
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        handle.write(struct.pack("<Q", len(text)) + text)
        self._places = {name: 8 + len(text) + offset for name, offset in offsets.items()}
        self._ends = [self._places[name] + forms[name].size_bytes for name in ordered]
        self._in_order = ordered
        self._done = 0  # tensors from the start of the file without a gap

    @property
    def complete(self) -> bool:
        """Whether every tensor was written."""
        return not self._missing

    def write(self, name: str, tensor: torch.Tensor) -> None:
        form = self._forms[name]
        assert tensor.shape == form.shape and tensor.dtype == form.dtype, name
        self._handle.seek(self._places[name])
        self._handle.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
        self._missing.remove(name)
        before = self._done
        while self._done < len(self._in_order) and self._in_order[self._done] not in self._missing:
            self._done += 1
        if self._done > before:
            self._handle.flush()
            self.hash.reach(self._ends[self._done - 1])
