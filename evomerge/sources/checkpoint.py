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
from evomerge.sources.companions import find_companions
from evomerge.sources.config import own_head, read_config
from evomerge.sources.digests import Digests
from evomerge.sources.files import read_weights
from evomerge.sources.header import Entry, read_ahead
from evomerge.sources.layers import find_stacks
from evomerge.sources.quantised import quantised_by
from evomerge.sources.settings import setting, vocabulary_size
from evomerge.sources.structure import Structure
from evomerge.sources.unread import Unread, find_unread

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
        self._handles: dict[Path, Any] = {}
        self._views: dict[str, torch.Tensor] = {}
        config = read_config(folder, named)
        found = read_weights(folder, named)
        shown = quantised_by(folder, config, found)
        if shown:
            raise SourceError(f"{named}: is quantised ({shown}); give the model as it was before")
        self._entries = {
            name: entry for name, entry in found.items() if not name.endswith(_COMPUTED)
        }
        shapes = self._shapes(named)
        unread = find_unread(config, shapes, self._equal)
        self.config = own_head(config) if unread.own_head and not unread.must_tie else config
        self.structure = _structure(self.config, self._entries, unread, named)
        computed = (found.keys() - self._entries.keys()) | unread.repeated | unread.ignored
        self._digests = Digests(reference, computed=frozenset(computed))

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
        """Hex digest of each of `files`; reads every byte of those that changed.

        Raises SourceError, for a weight that is not finite too.
        """
        return self._digests.of(self.files)

    def _shapes(self, named: str) -> dict[str, tuple[int, ...]]:
        for name, entry in self._entries.items():
            if not isinstance(getattr(torch, entry.dtype, None), torch.dtype):
                raise SourceError(
                    f"{named}: {name} is stored as {entry.dtype}; give the model as it was before"
                )
        return {name: entry.shape for name, entry in self._entries.items()}

    def _equal(self, a: str, b: str) -> bool:
        """Whether two tensors hold the same bytes."""
        one, other = self.tensor(a).contiguous(), self.tensor(b).contiguous()
        return one.dtype == other.dtype and torch.equal(
            one.view(-1).view(torch.uint8), other.view(-1).view(torch.uint8)
        )


def _structure(
    config: Mapping[str, Any], entries: Mapping[str, Entry], unread: Unread, named: str
) -> Structure:
    bytes_of: dict[str, int] = defaultdict(int)
    for entry in entries.values():
        bytes_of[entry.dtype] += entry.size_bytes
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
        tied=not unread.own_head and _is_tied(config, shapes),
        stacks=find_stacks(config, shapes, sizes, named),
        dtypes={name: entry.dtype for name, entry in entries.items()},
        repeated=unread.repeated,
        ignored=unread.ignored,
        parameters=unread.parameters,
    )


def _is_tied(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    said = setting(config, "tie_word_embeddings")
    if said is not None:
        return bool(said)
    # The default differs by architecture; untied models store two matrices with a row per word.
    rows = vocabulary_size(config, shapes)
    return sum(len(shape) == 2 and shape[0] == rows for shape in shapes.values()) < 2
