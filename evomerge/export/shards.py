"""Weights on disk: writes a stream of tensors into safetensors shards with their index.

A shard's header is written first, and the tensors follow in the order of the file. So only a few of
them are in memory at a time. (The format's own library writes whole files from memory.)
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evomerge.deferred import torch
from evomerge.export.adapter_facts import AdapterFacts
from evomerge.export.folder import inside, write_json
from evomerge.export.hashed_file import Bytes, HashedFile
from evomerge.merge import Elements
from evomerge.sources import FORMAT_NAMES, ITEM_BYTES

SHARD_BYTES = 5 * 10**9
"""Largest shard, unless one tensor alone is larger; what the Hugging Face hub recommends."""

_INDEX = "model.safetensors.index.json"
Make = Callable[[Sequence[str], "Room"], Iterable[tuple[str, "torch.Tensor | Elements"]]]
"""(names in the order of the files, memory for each) -> the tensors, by name and in that order."""

Room = Callable[[str], Bytes]
"""tensor name -> memory for its bytes, from where they are written without a copy."""


@dataclass(frozen=True, slots=True)
class Form:
    """Shape and dtype (torch's name) of a tensor, known before it is made."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of the values."""
        return self.elements * ITEM_BYTES[self.dtype]


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
    make: Make, forms: Mapping[str, Form], folder: Path, *, shard_bytes: int
) -> Weights:
    """Write tensors of these forms, and the index if there are several shards.

    make: makes them one after another, in the order of the files.
    """
    weight_map = shard_names({name: form.size_bytes for name, form in forms.items()}, shard_bytes)
    files: dict[str, dict[str, Form]] = {}
    for name, file in weight_map.items():
        files.setdefault(file, {})[name] = forms[name]
    digests = _write(make, files, folder)
    total_bytes = sum(form.size_bytes for form in forms.values())
    if len(files) > 1:
        counts = sum(form.elements for form in forms.values())
        metadata = {"total_parameters": counts, "total_size": total_bytes}
        write_json(folder, _INDEX, {"metadata": metadata, "weight_map": weight_map}, sort=True)
    return Weights(
        files=tuple(files), tensors=len(weight_map), size_bytes=total_bytes, sha256=digests
    )


def write_file(folder: Path, name: str, tensors: Mapping[str, torch.Tensor]) -> Weights:
    """Write tensors into one file, without another copy of them in memory."""
    forms = {
        key: Form(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for key, tensor in tensors.items()
    }
    digests = _write(
        lambda order, room: ((key, tensors[key]) for key in order), {name: forms}, folder
    )
    return Weights(
        files=(name,),
        tensors=len(forms),
        size_bytes=sum(form.size_bytes for form in forms.values()),
        sha256=digests,
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


def _write(make: Make, files: Mapping[str, Mapping[str, Form]], folder: Path) -> dict[str, str]:
    """Write each file with its tensors; returns the sha256 of each."""
    layouts = {file: _Layout(forms) for file, forms in files.items()}
    order = [name for layout in layouts.values() for name in layout.names]
    now: HashedFile

    def room(name: str) -> Bytes:
        return now.room(forms[name].size_bytes)

    stream = iter(make(order, room))
    digests: dict[str, str] = {}
    for file, layout in layouts.items():
        forms = files[file]
        largest = max(len(layout.header), *(form.size_bytes for form in forms.values()))
        with HashedFile(inside(folder, file), largest_bytes=largest) as now:
            now.write(np.frombuffer(layout.header, np.uint8))
            for name in layout.names:
                made, tensor = next(stream, ("", None))
                assert made == name and tensor is not None, f"{name} is missing"
                now.write(_bytes_of(tensor, forms[name]))
            digests[file] = now.finish()
    return digests


class _Layout:
    """A safetensors file: 8 bytes of header length, JSON, then the tensors without gaps.

    names: of the tensors, in order. Wide values come first, as the format's library orders them, so
    that all are aligned.
    """

    def __init__(self, forms: Mapping[str, Form]) -> None:
        self.names = sorted(forms, key=lambda name: (-ITEM_BYTES[forms[name].dtype], name))
        fields: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in self.names:
            form, start = forms[name], end
            end += form.size_bytes
            fields[name] = {
                "dtype": FORMAT_NAMES[form.dtype],
                "shape": list(form.shape),
                "data_offsets": [start, end],
            }
        text = json.dumps(fields, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self.header = struct.pack("<Q", len(text)) + text


def _bytes_of(tensor: torch.Tensor | Elements, form: Form) -> Bytes:
    """The bytes of a tensor, which share its memory if it is contiguous."""
    if isinstance(tensor, Elements):
        assert (tensor.shape, tensor.dtype) == (form.shape, form.dtype)
        return tensor.array.view(np.uint8)
    assert tensor.shape == form.shape and str(tensor.dtype) == f"torch.{form.dtype}"
    found: Bytes = tensor.contiguous().view(-1).view(torch.uint8).numpy()
    return found
