"""A saved model: structure from its files' headers, tensors mapped from the files."""

from __future__ import annotations

import mmap
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from evomerge.deferred import torch
from evomerge.errors import SourceError
from evomerge.recipe import DType
from evomerge.sources.companions import find_companions
from evomerge.sources.digests import Digests, not_finite
from evomerge.sources.files import read_json, read_weights
from evomerge.sources.header import ITEM_BYTES, Entry, read_ahead
from evomerge.sources.layers import (
    DEPTH_KEYS,
    DRAFT_KEY,
    SECTIONS,
    WIDTH_KEYS,
    find_stacks,
    setting,
    vocabulary_size,
)
from evomerge.sources.quantised import Packed, unpacked
from evomerge.sources.source import Structure
from evomerge.sources.unread import Unread, find_unread

# A model's config.json: read, with type checks of the settings that this package uses.


CONFIG = "config.json"

_AT_LEAST: Mapping[str, int] = {
    **dict.fromkeys((*DEPTH_KEYS, DRAFT_KEY), 0),
    **dict.fromkeys((*WIDTH_KEYS, "vocab_size", "num_attention_heads"), 1),
}
"""Integer settings, and the smallest value of each."""

_MOST = 2**31


def read_config(folder: Path, named: str) -> Mapping[str, Any]:
    """The config.json of a folder. Raises SourceError that names a field with a wrong value."""
    file = folder / CONFIG
    if not file.exists():
        raise SourceError(f"{named}: has no {CONFIG}; {_instead(folder)}")
    config = read_json(file, named)
    _check_names(config, named)
    for section in (config, *(config.get(name) for name in SECTIONS)):
        if isinstance(section, Mapping):
            _check_numbers(section, named)
    return config


def own_head(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of a model with a stored head that differs from the embeddings.

    transformers never ties such a head, even if the configuration says so; other programs do.
    """
    changed = {**config, "tie_word_embeddings": False}
    for name in SECTIONS:
        section = config.get(name)
        if isinstance(section, Mapping) and "tie_word_embeddings" in section:
            changed[name] = {**section, "tie_word_embeddings": False}
    return changed


def _check_names(config: Mapping[str, Any], named: str) -> None:
    architectures = config.get("architectures")
    if architectures is not None and not (
        isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)
    ):
        _refuse("architectures", architectures, "a list of names, like [LlamaForCausalLM]", named)
    model_type = config.get("model_type")
    if model_type is not None and not isinstance(model_type, str):
        _refuse("model_type", model_type, "a name", named)


def _check_numbers(section: Mapping[str, Any], named: str) -> None:
    for key, least in _AT_LEAST.items():
        value = section.get(key)
        # Some architectures have a list with a number for each layer.
        for number in value if isinstance(value, list) else [value]:
            if number is not None and not (type(number) is int and least <= number <= _MOST):
                _refuse(key, value, f"a whole number of {least} or more", named)
    tied = section.get("tie_word_embeddings")
    if tied is not None and not isinstance(tied, bool):
        _refuse("tie_word_embeddings", tied, "true or false", named)


def _refuse(key: str, value: object, wanted: str, named: str) -> None:
    raise SourceError(
        f"{named}: {key} in {CONFIG} is {str(value)[:60]!r}, not {wanted}; get the file again"
    )


def _instead(folder: Path) -> str:
    """The mend for a folder that holds no model itself."""
    inside = sorted(
        path.parent.name
        for name in ("config.json", "adapter_config.json")
        for path in folder.glob(f"*/{name}")
    )
    if inside:
        return f"give a folder inside it that holds a model, as {inside[0]} does"
    return "give the folder of a saved model"


_COMPUTED = "rotary_emb.inv_freq"
"""Ending of names of buffers that old checkpoints store and that models compute today."""


class Checkpoint:
    """A folder that transformers saved, opened for reading."""

    def __init__(self, folder: Path, *, reference: str, revision: str | None, named: str) -> None:
        """named: the start of messages. Raises SourceError."""
        self.folder = folder
        self.reference = reference
        self.revision = revision
        self._companions = find_companions(folder, named)
        self._handles: dict[Path, Any] = {}
        self._views: dict[str, torch.Tensor] = {}
        self._maps: dict[Path, mmap.mmap] = {}
        config = read_config(folder, named)
        self._stored = read_weights(folder, named)
        plain = unpacked(folder, config, self._stored, named)
        config, found, self._packed = plain.config, plain.entries, plain.packed
        self._last: tuple[str, torch.Tensor] | None = None
        self._in_range = not self._packed
        self._entries = {
            name: entry for name, entry in found.items() if not name.endswith(_COMPUTED)
        }
        shapes = self._shapes(named)
        unread = find_unread(config, shapes, self._equal)
        self.config = own_head(config) if unread.own_head and not unread.must_tie else config
        self.structure = _structure(self.config, self._entries, unread, named)
        computed = (found.keys() - self._entries.keys()) | unread.repeated | unread.ignored
        self._digests = Digests(reference, computed=frozenset(computed))

    def unpacked_alike(self, dtype: DType) -> bool:
        """Whether transformers, asked for a dtype, makes the same weights of packed ones.

        It unpacks in that dtype, not in the stored one, and no blocks that a matrix cuts off.
        """
        return not any(
            packed.cut or self._entries[name].dtype != dtype
            for name, packed in self._packed.items()
        )

    @property
    def files(self) -> Mapping[str, Path]:
        """Weights, index and the files beside them, but no other weights in the folder."""
        stored = {entry.file.name: entry.file for entry in self._stored.values()}
        return dict(sorted({**stored, **self._companions.files}.items()))

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor in its stored dtype and shape: a view of the file, never to be written to.

        A packed weight is unpacked whenever it is read; the last one is kept, because a method may
        read it again.
        """
        if name not in self._packed:  # the common case, for every tensor of every candidate
            view = self._views.get(name)
            return self._view(name) if view is None else view
        packed = self._packed[name]
        last = self._last  # another thread may set it meanwhile
        if last is None or last[0] != name:
            last = self._last = name, self._unpack(name, packed)
        return last[1]

    def _unpack(self, name: str, packed: Packed) -> torch.Tensor:
        """Raises SourceError where finite codes and finite scales make what is not finite."""
        made = packed.unpack(*map(self._view, packed.parts))
        fault = not_finite(made)
        if fault:
            raise SourceError(
                f"{self.reference}: {name} holds {fault} once it is unpacked with "
                f"{packed.parts[1]}, so no merge with it can be used; give a model with finite "
                "weights"
            )
        return made

    @property
    def is_plain(self) -> bool:
        """Whether every tensor is stored as it is used, so that `mapped` gives its bytes."""
        return not self._packed

    def mapped(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a stored tensor: a view of the file, copied where it is written to."""
        entry = self._stored[name]
        if entry.file not in self._maps:
            with entry.file.open("rb") as stream:
                self._maps[entry.file] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        return np.frombuffer(self._maps[entry.file], np.uint8, entry.size_bytes, entry.start)

    def _view(self, name: str) -> torch.Tensor:
        """A stored tensor: a view of its file."""
        view = self._views.get(name)
        if view is None:
            file = self._stored[name].file
            if file not in self._handles:
                self._handles[file] = safe_open(file, framework="pt")
            view = self._views[name] = self._handles[file].get_tensor(name)
        return view

    def as_stored(self, name: str) -> bool:
        """True: every tensor has its own rows."""
        return True

    def prefetch(self, name: str) -> None:
        """Ask the system to read a tensor's bytes ahead; returns at once."""
        packed = self._packed.get(name)
        for part in (name,) if packed is None else packed.parts:
            entry = self._stored[part]
            read_ahead(entry, self._maps.get(entry.file))

    def sha256(self) -> Mapping[str, str]:
        """Hex digest of each of `files`; reads every byte of those that changed.

        Raises SourceError, also for a weight that is not finite.
        """
        digests = self._digests.of(self.files)
        if not self._in_range:
            for name, packed in self._packed.items():
                scales = self._view(packed.parts[1])
                if (
                    not packed.bound(scales)
                    <= torch.finfo(getattr(torch, self._entries[name].dtype)).max
                ):
                    self.tensor(name)
            self._in_range = True
        return digests

    def _shapes(self, named: str) -> dict[str, tuple[int, ...]]:
        for name, entry in self._entries.items():
            if entry.dtype not in ITEM_BYTES:
                raise SourceError(
                    f"{named}: {name} is stored as {entry.dtype}; give the unconverted model"
                )
        return {name: entry.shape for name, entry in self._entries.items()}

    def _equal(self, a: str, b: str) -> bool:
        """Whether two tensors hold the same bytes."""
        if self._packed:
            first, second = self.tensor(a).contiguous(), self.tensor(b).contiguous()
            return first.dtype == second.dtype and torch.equal(
                first.view(-1).view(torch.uint8), second.view(-1).view(torch.uint8)
            )
        same = self._stored[a].dtype == self._stored[b].dtype
        return same and np.array_equal(self.mapped(a), self.mapped(b))


def _structure(
    config: Mapping[str, Any], entries: Mapping[str, Entry], unread: Unread, named: str
) -> Structure:
    bytes_of: dict[str, int] = defaultdict(int)
    for entry in entries.values():
        bytes_of[entry.dtype] += entry.size_bytes
    storage_dtype = max(bytes_of, key=lambda dtype: bytes_of[dtype])
    if storage_dtype not in get_args(DType):
        raise SourceError(
            f"{named}: is stored as {storage_dtype}; give a model in {', '.join(get_args(DType))}"
        )
    shapes = {name: entry.shape for name, entry in entries.items()}
    sizes = {name: entry.size_bytes for name, entry in entries.items()}
    architectures = config.get("architectures")
    return Structure(
        architecture=str(architectures[0] if architectures else config.get("model_type", "")),
        shapes=shapes,
        dtype=cast(DType, storage_dtype),
        tied=not unread.own_head and _is_tied(config, shapes),
        stacks=find_stacks(config, shapes, sizes, named),
        dtypes={name: entry.dtype for name, entry in entries.items()},
        repeated=unread.repeated,
        ignored=unread.ignored,
        parameters=unread.parameters,
    )


def _is_tied(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    stated = setting(config, "tie_word_embeddings")
    if stated is not None:
        return bool(stated)
    # The default differs by architecture; untied models store two matrices with a row per token.
    rows = vocabulary_size(config, shapes)
    return sum(len(shape) == 2 and shape[0] == rows for shape in shapes.values()) < 2
