"""A saved model: its structure from the headers of its files, its tensors mapped from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

import torch
from safetensors import safe_open

from evomerge.errors import SourceError
from evomerge.recipe import DType
from evomerge.sources.companions import check_file, find_companions
from evomerge.sources.files import (
    Digests,
    Entry,
    read_ahead,
    read_entries,
    read_json,
    weight_files,
)
from evomerge.sources.layers import find_stacks
from evomerge.sources.settings import setting, vocabulary_size
from evomerge.sources.structure import Structure

_COMPUTED = "rotary_emb.inv_freq"
"""Ending of the names of buffers that old checkpoints store and every model computes today."""


class Checkpoint:
    """A folder that transformers saved, opened for reading."""

    def __init__(self, folder: Path, *, reference: str, revision: str | None, named: str) -> None:
        """named: how messages begin. Raises SourceError."""
        self.folder = folder
        self.reference = reference
        self.revision = revision
        self._companions = find_companions(folder, named)
        self.config = _read_config(folder, named)
        self._entries: dict[str, Entry] = {}
        for file in weight_files(folder, named):
            check_file(file, named)  # weights may be kept elsewhere and linked
            for name, entry in read_entries(file, named).items():
                if not name.endswith(_COMPUTED):
                    self._entries[name] = entry
        self.structure = _structure(self.config, self._entries, named)
        self._handles: dict[Path, Any] = {}
        self._views: dict[str, torch.Tensor] = {}
        self._digests = Digests()

    @property
    def files(self) -> Mapping[str, Path]:
        """Weights, index and what lies beside them; other weights that lie there are not."""
        stored = {entry.file.name: entry.file for entry in self._entries.values()}
        return dict(sorted({**stored, **self._companions.files}.items()))

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor in its stored dtype and shape: a view of the file, never to be written to."""
        view = self._views.get(name)
        if view is None:
            file = self._entries[name].file
            if file not in self._handles:
                self._handles[file] = safe_open(file, framework="pt")
            view = self._views[name] = self._handles[file].get_tensor(name)
        return view

    def as_stored(self, name: str) -> bool:
        """Every tensor's rows are its own."""
        return True

    def prefetch(self, name: str) -> None:
        """Ask the system to read a tensor's bytes ahead; returns at once."""
        read_ahead(self._entries[name])

    def sha256(self) -> Mapping[str, str]:
        """Hex digest of each of `files`; reads every byte of those that changed. SourceError."""
        return self._digests.of(self.files)


def _read_config(folder: Path, named: str) -> Mapping[str, Any]:
    file = folder / "config.json"
    if not file.exists():
        raise SourceError(f"{named}: has no config.json; {_instead(folder)}")
    config = read_json(file, named)
    if config.get("quantization_config"):
        raise SourceError(f"{named}: is quantised; give the model as it was before")
    return config


def _instead(folder: Path) -> str:
    """What to give in place of a folder that holds no model itself."""
    inside = sorted(
        path.parent.name
        for name in ("config.json", "adapter_config.json")
        for path in folder.glob(f"*/{name}")
    )
    if inside:
        return f"give a folder inside it that holds a model, as {inside[0]} does"
    return "give the folder of a saved model"


def _structure(config: Mapping[str, Any], entries: Mapping[str, Entry], named: str) -> Structure:
    bytes_of: dict[str, int] = defaultdict(int)
    for entry in entries.values():
        bytes_of[entry.dtype] += entry.size_bytes
    for name, entry in entries.items():
        if not hasattr(torch, entry.dtype):
            raise SourceError(
                f"{named}: {name} is stored as {entry.dtype}; give the model as it was before"
            )
    stored = max(bytes_of, key=lambda dtype: bytes_of[dtype])
    if stored not in get_args(DType):
        raise SourceError(
            f"{named}: is stored as {stored}; give a model in {', '.join(get_args(DType))}"
        )
    shapes = {name: entry.shape for name, entry in entries.items()}
    sizes = {name: entry.size_bytes for name, entry in entries.items()}
    architectures = config.get("architectures")
    return Structure(
        architecture=str(architectures[0] if architectures else config.get("model_type", "")),
        shapes=shapes,
        dtype=cast(DType, stored),
        tied=_is_tied(config, shapes),
        stacks=find_stacks(config, shapes, sizes, named),
        dtypes={name: entry.dtype for name, entry in entries.items()},
    )


def _is_tied(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    said = setting(config, "tie_word_embeddings")
    if said is not None:
        return bool(said)
    # The default differs by architecture; untied models store two matrices with a row per word.
    rows = vocabulary_size(config, shapes)
    return sum(len(shape) == 2 and shape[0] == rows for shape in shapes.values()) < 2
