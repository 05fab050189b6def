"""Checkpoints: open one by folder or hub id, say how it is built, hand out its tensors.

Only safetensors are read, and nothing is unpickled. What a checkpoint holds is learnt from the
files' headers, so opening costs milliseconds whatever the size; tensors are memory-mapped when
asked for. Nothing here knows of merging, and no architecture is known by name.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open

from evomerge.errors import SourceError, one_line
from evomerge.recipe import DType

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*config.json",
    "*token*.json",
    "vocab.json",
    "chat_template.json",
    "*.jinja",
    "*.model",
    "*.tiktoken",
    "merges.txt",
    "vocab.txt",
    "*.py",
)
"""What is fetched from the hub and hashed; `*.py` is run only if a job trusts remote code."""

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_DTYPES: Mapping[str, DType] = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_DEPTH_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEAD_SETTINGS = ("num_attention_heads", "num_key_value_heads", "head_dim")
"""Settings that two models must share though their tensors may have equal shapes without."""

_HUB_ID = re.compile(r"(?P<id>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[^@]+))?")
_NUMBERED = re.compile(r"^(?P<prefix>.*?)(?P<index>\d+)\.")
_LARGEST_HEADER_BYTES = 100_000_000  # the format's own limit


@dataclass(frozen=True, kw_only=True)
class Structure:
    """How a checkpoint is built.

    architecture: the class that `config.json` names. depth: number of layers. layer_prefix: what
    the names of their tensors start with, before the number. shapes: tensor name -> shape, in the
    order of the files. dtype: what most of the bytes are stored as. tied: whether the head shares
    the embedding's weight.
    """

    architecture: str
    depth: int
    layer_prefix: str
    shapes: Mapping[str, tuple[int, ...]]
    dtype: DType
    tied: bool

    def layer_of(self, tensor_name: str) -> int | None:
        """The layer a tensor belongs to; None for tensors outside the layers."""
        if not tensor_name.startswith(self.layer_prefix):
            return None
        number = tensor_name[len(self.layer_prefix) :].partition(".")[0]
        return int(number) if number.isdecimal() else None

    @property
    def outer(self) -> tuple[str, ...]:
        """Names of the tensors outside the layers."""
        return tuple(name for name in self.shapes if self.layer_of(name) is None)


class Source:
    """A checkpoint opened for reading; made by `open_source`."""

    def __init__(
        self,
        *,
        reference: str,
        folder: Path,
        revision: str | None,
        config: Mapping[str, Any],
        structure: Structure,
        files: Mapping[str, Path],
    ) -> None:
        self.reference = reference
        self.folder = folder
        self.revision = revision
        self.config = config
        self.structure = structure
        self._files = files  # tensor name -> safetensors file
        self._handles: dict[Path, Any] = {}
        self._views: dict[str, torch.Tensor] = {}

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor in its stored dtype and shape: a view of the file, never to be written to."""
        view = self._views.get(name)
        if view is None:
            file = self._files[name]
            if file not in self._handles:
                self._handles[file] = safe_open(file, framework="pt")
            view = self._views[name] = self._handles[file].get_tensor(name)
        return view

    def sha256(self) -> Mapping[str, str]:
        """Hex digest of every file that makes the model: weights, index, configs, tokenizer.

        Reads every byte; files are hashed in parallel threads. Raises SourceError.
        """
        stored = set(self._files.values())
        others = {path for pattern in _MODEL_FILES for path in self.folder.glob(pattern)}
        unused = {path for path in others if path.suffix == ".safetensors"} - stored
        paths = sorted(stored | (others - unused))
        with ThreadPoolExecutor() as threads:
            digests = threads.map(_sha256, paths)
            return {path.name: digest for path, digest in zip(paths, digests, strict=True)}


def open_source(reference: str, *, where: str) -> Source:
    """Open a local folder or a hub id (`org/name`, `org/name@revision`).

    A reference that exists as a folder is that folder. `where` names the field that holds the
    reference, for messages. Raises SourceError in one line.
    """
    named = f"{where}: {reference}"
    folder, revision = _locate(reference, named)
    config = _read_config(folder, named)
    headers = {file: _read_header(file, named) for file in _weight_files(folder, named)}
    files = {name: file for file, entries in headers.items() for name in entries}
    entries = {name: entry for header in headers.values() for name, entry in header.items()}
    return Source(
        reference=reference,
        folder=folder,
        revision=revision,
        config=config,
        structure=_structure(config, entries, named),
        files=files,
    )


def check_compatible(sources: Sequence[Source]) -> Structure:
    """The structure that all the sources share.

    Raises SourceError that names the first thing that differs, in words.
    """
    first = sources[0]
    for other in sources[1:]:
        difference = _difference(first, other)
        if difference:
            raise SourceError(
                f"{other.reference} does not fit {first.reference}: {difference}; "
                "merge only models fine-tuned from the same base"
            )
    return first.structure


def _difference(first: Source, other: Source) -> str | None:
    a, b = first.structure, other.structure
    if a.architecture != b.architecture:
        return f"its architecture is {b.architecture}, not {a.architecture}"
    if a.depth != b.depth:
        return f"it has {b.depth} layers, not {a.depth}"
    if vocabulary := _setting_that_differs(first, other, "vocab_size"):
        return vocabulary
    if a.tied != b.tied:
        return f"tie_word_embeddings is {b.tied} there, not {a.tied}"
    for name, shape in a.shapes.items():
        if name not in b.shapes:
            return f"it has no tensor {name}"
        if b.shapes[name] != shape:
            return f"{name} has shape {list(b.shapes[name])}, not {list(shape)}"
    extra = next((name for name in b.shapes if name not in a.shapes), None)
    if extra:
        return f"it has a tensor more, {extra}"
    return _setting_that_differs(first, other, *_HEAD_SETTINGS)


def _setting_that_differs(first: Source, other: Source, *keys: str) -> str | None:
    for key in keys:
        ours, theirs = _setting(first.config, key), _setting(other.config, key)
        if ours != theirs:
            return f"its {key} is {theirs}, not {ours}"
    return None


def _locate(reference: str, named: str) -> tuple[Path, str | None]:
    """The folder of a reference and, for a hub id, the commit it resolved to."""
    path = Path(reference).expanduser()
    if path.is_dir():
        return path.resolve(), None
    if path.exists():
        raise SourceError(f"{named}: is a file; give the folder that holds it")
    hub = _HUB_ID.fullmatch(reference)
    if hub is None:
        raise SourceError(
            f"{named}: no such folder; check the path (a hub id is org/name or org/name@revision)"
        )
    try:
        snapshot = snapshot_download(
            hub["id"],
            revision=hub["revision"],
            allow_patterns=[*_MODEL_FILES, "README.md"],  # the card states the licence
            ignore_patterns=["*/*"],  # other formats live in subfolders
        )
    except Exception as error:  # whatever the hub's client and its transport raise
        reason = one_line(error).split(". ")[0].rstrip(".")
        raise SourceError(
            f"{named}: no such folder, and not to be had from the hub ({reason}); "
            "check the name, or download it first"
        ) from error
    folder = Path(snapshot)
    return folder, folder.name  # the cache names a snapshot by its commit


def _read_config(folder: Path, named: str) -> Mapping[str, Any]:
    weights = (folder / _SINGLE).exists() or (folder / _INDEX).exists()
    if (folder / "adapter_config.json").exists() and not weights:
        loader, then = "AutoPeftModelForCausalLM", ".merge_and_unload()"
        merge = _command("peft", loader, folder, "merged", then)
        raise SourceError(f"{named}: is a PEFT adapter; merge it into its base first: {merge}")
    file = folder / "config.json"
    if not file.exists():
        raise SourceError(f"{named}: has no config.json; give the folder of a saved model")
    config = _read_json(file, named)
    if config.get("quantization_config"):
        raise SourceError(f"{named}: is quantised; give the model as it was before")
    return config


def _read_json(file: Path, named: str) -> Mapping[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{named}: {file.name} cannot be read; get the file again") from error
    if not isinstance(document, dict):
        raise SourceError(f"{named}: {file.name} is not a JSON object; get the file again")
    return document


def _weight_files(folder: Path, named: str) -> list[Path]:
    """The safetensors files that transformers would load, in order."""
    if (folder / _SINGLE).exists():
        return [folder / _SINGLE]
    if (folder / _INDEX).exists():
        weight_map = _read_json(folder / _INDEX, named).get("weight_map")
        shards = set(weight_map.values()) if isinstance(weight_map, dict) else set()
        if not shards or not all(isinstance(shard, str) for shard in shards):
            raise SourceError(f"{named}: {_INDEX} has no weight_map; get the file again")
        outside = next((shard for shard in sorted(shards) if Path(shard).name != shard), None)
        if outside:
            raise SourceError(
                f"{named}: {_INDEX} names {outside}, outside its folder; get the file again"
            )
        files = [folder / shard for shard in sorted(shards)]
        missing = next((file for file in files if not file.exists()), None)
        if missing:
            raise SourceError(
                f"{named}: {missing.name} is missing, which {_INDEX} names; get the file again"
            )
        return files
    if any(folder.glob("pytorch_model*.bin")):
        raise SourceError(
            f"{named}: has .bin weights, which can run code when read; convert them: "
            f"{_command('transformers', 'AutoModelForCausalLM', folder, 'safetensors')}"
        )
    pickled = next((file for pattern in _PICKLES for file in sorted(folder.glob(pattern))), None)
    found = f"only {pickled.name}, which can run code when read" if pickled else "no weights"
    raise SourceError(
        f"{named}: has {found}; save the model with transformers' save_pretrained, "
        f"which writes {_SINGLE}"
    )


def _command(package: str, loader: str, folder: Path, suffix: str, then: str = "") -> str:
    """A shell command that saves the model of `folder` beside it as safetensors."""
    out = f"{folder}-{suffix}"
    return (
        f'python -c "from {package} import {loader} as M; '
        f"M.from_pretrained('{folder}', dtype='auto'){then}.save_pretrained('{out}'); "
        "from transformers import AutoTokenizer as T; "
        f"T.from_pretrained('{folder}').save_pretrained('{out}')\""
    )


def _read_header(file: Path, named: str) -> dict[str, Mapping[str, Any]]:
    """Tensor name -> dtype, shape and data_offsets, in the order of the data.

    The header is an 8-byte little-endian length and that much JSON; the data follow, without gaps.
    """
    damaged = SourceError(f"{named}: {file.name} is empty, cut short or damaged; get it again")
    try:
        size_bytes = file.stat().st_size
        with file.open("rb") as stream:
            (header_bytes,) = struct.unpack("<Q", stream.read(8))
            if header_bytes > min(size_bytes - 8, _LARGEST_HEADER_BYTES):
                raise damaged
            header = json.loads(stream.read(header_bytes))
        header.pop("__metadata__", None)
        entries = sorted(header.items(), key=lambda item: tuple(item[1]["data_offsets"]))
        end = entries[-1][1]["data_offsets"][1]
    except (OSError, ValueError, struct.error, LookupError, AttributeError, TypeError) as error:
        raise damaged from error
    if size_bytes != 8 + header_bytes + end:
        raise damaged
    return dict(entries)


def _structure(
    config: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]], named: str
) -> Structure:
    sizes = {
        name: entry["data_offsets"][1] - entry["data_offsets"][0] for name, entry in entries.items()
    }
    bytes_of: dict[str, int] = defaultdict(int)
    for name, entry in entries.items():
        bytes_of[entry["dtype"]] += sizes[name]
    stored = max(bytes_of, key=lambda dtype: bytes_of[dtype])
    if stored not in _DTYPES:
        raise SourceError(
            f"{named}: is stored as {stored}; give a model in {', '.join(_DTYPES.values())}"
        )
    prefix, depth = _layers(config, sizes, named)
    shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
    architectures = config.get("architectures")
    return Structure(
        architecture=str(architectures[0] if architectures else config.get("model_type", "")),
        depth=depth,
        layer_prefix=prefix,
        shapes=shapes,
        dtype=_DTYPES[stored],
        tied=_is_tied(config, shapes),
    )


def _is_tied(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    said = _setting(config, "tie_word_embeddings")
    if said is not None:
        return bool(said)
    # The default differs by architecture; untied models store two matrices with a row per word.
    rows = _setting(config, "vocab_size")
    by_word = [shape for shape in shapes.values() if len(shape) == 2 and shape[0] == rows]
    return len(by_word) < 2


def _layers(config: Mapping[str, Any], sizes: Mapping[str, int], named: str) -> tuple[str, int]:
    """The prefix and depth of the layers: the heaviest stack of tensors numbered from 0.

    Where the config says the depth, only stacks of that depth count (a vision tower is another).
    """
    numbers: dict[str, set[int]] = defaultdict(set)
    weights: dict[str, int] = defaultdict(int)
    for name, size in sizes.items():
        match = _NUMBERED.match(name)
        if match:
            numbers[match["prefix"]].add(int(match["index"]))
            weights[match["prefix"]] += size
    stacks = {prefix for prefix, found in numbers.items() if found == set(range(len(found)))}
    said = next((d for key in _DEPTH_KEYS if (d := _setting(config, key)) is not None), None)
    fitting = {prefix for prefix in stacks if said in (None, len(numbers[prefix]))}
    if not fitting:
        raise SourceError(
            f"{named}: no {said or ''} numbered layers among its tensors as config.json says; "
            "get the weights and the config from the same place"
        )
    prefix = max(sorted(fitting), key=lambda candidate: weights[candidate])
    return prefix, len(numbers[prefix])


def _setting(config: Mapping[str, Any], key: str) -> Any:
    """A setting of the language model; models of several kinds nest it in `text_config`."""
    text = config.get("text_config")
    nested = text.get(key) if isinstance(text, Mapping) else None
    return config.get(key) if nested is None else nested


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); get it again") from error
