"""A PEFT LoRA adapter over its base, as one model that is never written to disk.

Tensors that the adapter changes are computed in float32 when they are read; all others are the
base's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from evomerge.deferred import torch
from evomerge.errors import SourceError
from evomerge.sources.companions import check_file, find_companions
from evomerge.sources.correspondence import place_names, prefixes_of
from evomerge.sources.digests import Digests, not_finite
from evomerge.sources.header import read_entries
from evomerge.sources.layers import vocabulary_size, with_setting
from evomerge.sources.lora import AdapterConfig, Change, Parts, change_of, named_parts
from evomerge.sources.source import Source, Structure

_WEIGHTS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"


class Adapter:
    """A LoRA adapter (Hu et al. 2021) opened over its base."""

    def __init__(
        self,
        folder: Path,
        *,
        reference: str,
        revision: str | None,
        config: AdapterConfig,
        base: Source,
        named: str,
    ) -> None:
        """named: the start of messages. Raises SourceError."""
        self.folder = folder
        self.reference = reference
        self.revision = revision
        self.base = base
        self._digests = Digests(reference)
        self._last: tuple[str, torch.Tensor] | None = None
        self._companions = find_companions(folder, named)
        tensors = _read_weights(folder, named)
        try:
            self._changes = _changes(tensors, config, base.structure)
        except SourceError as error:
            raise SourceError(f"{named}: {error}") from error
        self.structure = _changed_structure(base.structure, self._changes)
        self.config = _changed_config(base, self.structure)

    @property
    def files(self) -> Mapping[str, Path]:
        """The adapter's own files by name, and its base's files as `base/` plus their name."""
        own = {_WEIGHTS: self.folder / _WEIGHTS, **self._companions.files}
        base = {f"base/{name}": path for name, path in self.base.files.items()}
        return {**dict(sorted(own.items())), **base}

    def change(self, name: str) -> Change | None:
        """How it changes one of the base's tensors; None where it does not."""
        return self._changes.get(name)

    def tensor(self, name: str) -> torch.Tensor:
        """base + scale·B·A in float32 where the adapter changes a tensor, else the base's own.

        Never to be written to. The last computed tensor is kept, because a method may read it
        again.
        """
        change = self.change(name)
        if change is None:
            return self.base.tensor(name)
        last = self._last  # another thread may set it meanwhile
        if last is None or last[0] != name:
            stored = change.replacement
            changed = change.apply(self.base.tensor(name) if stored is None else stored)
            last = self._last = name, changed
        return last[1]

    def as_stored(self, name: str) -> bool:
        """True: every tensor has its own rows."""
        return True

    def prefetch(self, name: str) -> None:
        """Ask the system to read the base's bytes ahead; returns at once."""
        self.base.prefetch(name)

    def sha256(self) -> Mapping[str, str]:
        """Hex digest of each of `files`, the base's among them. Raises SourceError."""
        own = {name: path for name, path in self.files.items() if not name.startswith("base/")}
        of_base = {f"base/{name}": digest for name, digest in self.base.sha256().items()}
        return {**self._digests.of(own), **of_base}


def _read_weights(folder: Path, named: str) -> dict[str, torch.Tensor]:
    file = folder / _WEIGHTS
    if file.exists():
        check_file(file, named)  # weights may be kept elsewhere and linked
        read_entries(file, named)  # refuses a damaged file
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        for name, tensor in tensors.items():
            non_finite = not_finite(tensor) if tensor.dtype.itemsize > 1 else None
            if non_finite:
                raise SourceError(
                    f"{named}: {name} holds {non_finite}; give an adapter with finite weights"
                )
        return tensors
    pickled = folder / _PICKLED
    if pickled.exists():
        raise SourceError(
            f"{named}: has {_PICKLED}, which can run code when read; convert it: "
            'python -c "import torch; from safetensors.torch import save_file; '
            f"w = torch.load('{pickled}', map_location='cpu', weights_only=True); "
            f"save_file({{k: v.contiguous() for k, v in w.items()}}, '{file}')\""
        )
    raise SourceError(f"{named}: has no {_WEIGHTS}; save the adapter with PEFT's save_pretrained")


def _changes(
    tensors: Mapping[str, torch.Tensor], config: AdapterConfig, base: Structure
) -> dict[str, Change]:
    """The base's tensor name -> its change. Raises SourceError."""
    parts = named_parts(tensors)
    places = _places(parts, base)
    changes: dict[str, Change] = {}
    for name, part in parts.items():
        if name in places:
            changes[places[name]] = change_of(name, places[name], part, config, base)
        elif not _repeats_embeddings(part, parts.values(), base):
            raise SourceError(
                f"it changes {name}, which the base does not have; give the base that it was "
                "trained on"
            )
    return changes


def _places(parts: Mapping[str, Parts], base: Structure) -> dict[str, str]:
    """The adapter's name of each changed tensor -> the base's name, where the base has it."""
    if all(name in base.shapes for name in parts):
        return {name: name for name in parts}
    return place_names(
        base.shapes,
        {name: part.shape for name, part in parts.items()},
        lead_prefixes=[stack.prefix for stack in base.stacks],
        other_prefixes=prefixes_of(parts),
    )


def _repeats_embeddings(part: Parts, others: Iterable[Parts], base: Structure) -> bool:
    """Whether a part is a tied head that was saved beside the embeddings."""
    if not base.tied or part.replacement is None:
        return False
    replaced = [other.replacement for other in others if other is not part]
    return any(other is not None and torch.equal(other, part.replacement) for other in replaced)


def _changed_structure(base: Structure, changes: Mapping[str, Change]) -> Structure:
    """The base's structure, with the new rows of embeddings if the adapter added tokens."""
    shapes = {
        name: tuple(change.replacement.shape)
        for name, change in changes.items()
        if change.replacement is not None
    }
    return replace(base, shapes={**base.shapes, **shapes}) if shapes else base


def _changed_config(base: Source, structure: Structure) -> Mapping[str, Any]:
    before = vocabulary_size(base.config, base.structure.shapes)
    for name, shape in base.structure.shapes.items():
        now = structure.shapes[name]
        if now != shape and len(shape) == 2 and shape[0] == before:
            return with_setting(base.config, "vocab_size", now[0])
    return base.config
