"""Statistics of the sources on a user's text: their kinds, their file format, and reading them.

One safetensors file holds one kind of statistic for one model, under the tensor names of its
checkpoint. Its metadata say which weights and which text it was computed from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from evomerge.deferred import torch
from evomerge.errors import RecipeError, SourceError
from evomerge.sources import Source

FileKind = Literal["fisher", "inputs"]
"""What a file holds. fisher: the diagonal of the empirical Fisher information, in each tensor's
shape. inputs: XᵀX of the inputs of each linear layer, (in, in), by the name of its weight."""

Kind = Literal["fisher", "fisher_mean", "fisher_norm", "inputs", "input_axis"]
"""The statistics of a tensor. fisher_mean: the mean of its diagonal, shape (). fisher_norm: the
norm of the diagonal over the whole model, shape (), the same for every tensor. input_axis: the axis
of a linear layer's weight that the inputs multiply, shape (), int64. fisher and inputs: as in
FileKind."""

_FILE_OF: Mapping[str, FileKind] = {
    "fisher": "fisher",
    "fisher_mean": "fisher",
    "fisher_norm": "fisher",
    "inputs": "inputs",
    "input_axis": "inputs",
}
MEAN_SUFFIX = "#mean"
"""Added to a tensor's name for the mean of its Fisher diagonal. Checkpoints have no `#` in
names."""
NORM_NAME = "#norm"


@dataclass(frozen=True, kw_only=True)
class Header:
    """The metadata of a file of statistics.

    model: its folder, or its hub id, when it was calibrated. weights_sha256, text_sha256: of the
    weights and the text that it was computed from. settings: how it was computed, in words. shared:
    tensor -> the tensor that has the same inputs and under which they are stored. transposed:
    linear weights that are stored (in, out).
    """

    kind: FileKind
    model: str
    weights_sha256: str
    text_sha256: str
    settings: str
    shared: Mapping[str, str] = field(default_factory=dict)
    transposed: frozenset[str] = frozenset()

    def to_metadata(self) -> dict[str, str]:
        """The metadata of the safetensors file."""
        return {
            "format": "pt",
            "evomerge_statistics": self.kind,
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "text_sha256": self.text_sha256,
            "settings": self.settings,
            "shared": json.dumps(self.shared, sort_keys=True),
            "transposed": json.dumps(sorted(self.transposed)),
        }

    @property
    def file_name(self) -> str:
        """Its file name in a folder of statistics: the model's name and a digest of its weights."""
        name = Path(self.model.partition("@")[0]).name or "model"
        return f"{name}-{self.weights_sha256[:12]}.{self.kind}.safetensors"

    def says_the_same_as(self, other: Header) -> bool:
        """Whether both are of the same weights, text and settings, whatever the model is called."""
        mine = (self.kind, self.weights_sha256, self.text_sha256, self.settings)
        return mine == (other.kind, other.weights_sha256, other.text_sha256, other.settings)


def read_header(file: Path) -> Header | None:
    """The header of a file; None if `evomerge calibrate` did not write it."""
    try:
        with safe_open(file, framework="pt") as handle:
            metadata = handle.metadata() or {}
    except (OSError, SafetensorError):
        return None
    kind = metadata.get("evomerge_statistics")
    if kind not in ("fisher", "inputs"):
        return None
    try:
        return Header(
            kind="fisher" if kind == "fisher" else "inputs",
            model=metadata["model"],
            weights_sha256=metadata["weights_sha256"],
            text_sha256=metadata["text_sha256"],
            settings=metadata["settings"],
            shared=json.loads(metadata["shared"]),
            transposed=frozenset(json.loads(metadata["transposed"])),
        )
    except (KeyError, ValueError, TypeError, RecursionError):
        return None


def model_name(source: Source) -> str:
    """The name of a source in a header: the same from every working folder."""
    return str(source.folder) if source.revision is None else source.reference


def weights_sha256(source: Source) -> str:
    """A digest of a source's weights alone: other configs or tokenizers do not change it."""
    files = {
        name: digest
        for name, digest in source.sha256().items()
        if name.endswith((".safetensors", "adapter_config.json"))
    }
    text = "".join(f"{name} {files[name]}\n" for name in sorted(files))
    return hashlib.sha256(text.encode()).hexdigest()


class Statistics:
    """A folder of statistics and the sources that it is read for; made by `open`."""

    def __init__(
        self, folder: Path, sources: Mapping[str, Source], files: Mapping[Path, Header]
    ) -> None:
        self._folder = folder
        self._sources = dict(sources)
        self._files = dict(files)
        self._digests: dict[str, str] = {}
        self._opened: dict[tuple[str, FileKind], _StatisticsFile] = {}

    @classmethod
    def open(cls, folder: str | Path, sources: Mapping[str, Source]) -> Statistics:
        """The statistics in a folder, for sources by reference as recipes name them.

        Reads the files' headers only; a source is hashed at its first use. Raises RecipeError where
        the folder holds no statistics.
        """
        path = Path(os.path.expanduser(folder))
        files_there = sorted(path.glob("*.safetensors")) if os.path.isdir(path) else []
        headers = {file: read_header(file) for file in files_there}
        files = {file: header for file, header in headers.items() if header is not None}
        if not files:
            models = " ".join(shlex.quote(reference) for reference in sources)
            raise RecipeError(
                f"evomerge.statistics: {folder}: holds no statistics; run: evomerge calibrate "
                f"{models} --text FILE --out {shlex.quote(str(folder))}"
            )
        return cls(path, sources, files)

    def require(self, reference: str, kind: FileKind) -> None:
        """Raise RecipeError, as `get` would, unless the model has statistics of the kind."""
        if (reference, kind) not in self._opened:
            self._opened[reference, kind] = self._open(reference, kind)

    def get(self, reference: str, kind: str, tensor_name: str) -> torch.Tensor | None:
        """A statistic of one tensor of a model, float32 unless its kind says otherwise.

        kind: one of `Kind`. Returns a view of the file, never to be written to; None where the file
        has no statistic for this tensor. Raises RecipeError where the model was not calibrated for
        the kind, or its weights have changed since.
        """
        file_kind = _FILE_OF.get(kind)
        assert file_kind is not None, f"{kind} is no statistic"
        self.require(reference, file_kind)
        if file_kind == "fisher" and not self._sources[reference].as_stored(tensor_name):
            return None  # its rows belong to other tokens than the statistic's
        return self._opened[reference, file_kind].get(kind, tensor_name)

    def _open(self, reference: str, kind: FileKind) -> _StatisticsFile:
        source = self._sources[reference]
        if reference not in self._digests:
            self._digests[reference] = weights_sha256(source)
        digest = self._digests[reference]
        known = [(path, header) for path, header in self._files.items() if header.kind == kind]
        for path, header in known:
            if header.weights_sha256 == digest:
                return _StatisticsFile(path, header)
        changed = any(header.model == model_name(source) for _, header in known)
        problem = f"no statistics of {reference}"
        if changed:
            problem = f"the weights of {reference} changed after its calibration"
        raise RecipeError(
            f"evomerge.statistics: {self._folder}: {kind}: {problem}; run: evomerge calibrate "
            f"{shlex.quote(reference)} --text FILE --out {shlex.quote(str(self._folder))} --{kind}"
        )


class _StatisticsFile:
    """One opened file; its tensors are mapped when they are read."""

    def __init__(self, path: Path, header: Header) -> None:
        self._path = path
        self._header = header
        self._handle = _mapped(path)
        self._names = frozenset(self._handle.keys())

    def get(self, kind: str, tensor_name: str) -> torch.Tensor | None:
        if kind == "fisher_norm":
            return self._stored(NORM_NAME)
        if kind == "fisher_mean":
            return self._stored(tensor_name + MEAN_SUFFIX)
        stored = self._stored(self._header.shared.get(tensor_name, tensor_name))
        if kind != "input_axis" or stored is None:
            return stored
        return torch.tensor(0 if tensor_name in self._header.transposed else 1)

    def _stored(self, name: str) -> torch.Tensor | None:
        if name not in self._names:
            return None
        try:
            tensor: torch.Tensor = self._handle.get_tensor(name)
        except SafetensorError as error:
            raise SourceError(f"{self._path}: cannot be read; calibrate again") from error
        return tensor


def _mapped(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise SourceError(f"{path}: cannot be read; calibrate again") from error
