"""A merged checkpoint on disk, as transformers itself would have saved it.

The merge engine's stream goes into safetensors shards, so memory holds at most one shard. Beside
them go the base's configuration and a source's tokenizer. Nothing here knows scores or cards.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from evomerge.errors import RecipeError
from evomerge.export.folder import inside
from evomerge.merge.engine import MergeEngine
from evomerge.recipe import Recipe
from evomerge.sources import Source

SHARD_BYTES = 5 * 10**9
"""Largest shard, unless one tensor alone is larger; what the Hugging Face hub recommends."""

_INDEX = "model.safetensors.index.json"
_TOKENIZER_FILES = (
    "*token*.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "*.spm",
    "*.jinja",
    "chat_template.json",
    "normalizer.json",
    "additional_chat_templates/*.jinja",
)
_CODE_FILES = ("*.py",)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What was written of the weights. size_bytes: of the tensors, without the files' headers."""

    files: tuple[str, ...]
    tensors: int
    size_bytes: int


def write_checkpoint(
    recipe: Recipe,
    sources: Mapping[str, Source],
    tokenizer_source: Source,
    folder: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    trust_remote_code: bool = False,
) -> Weights:
    """Execute a recipe into a folder that is there already.

    sources: opened checkpoints by the references of the recipe. shard_bytes: largest shard, unless
    one tensor alone is larger. trust_remote_code: whether the modelling code of the first model is
    copied along. Raises RecipeError and SourceError before anything is written.
    """
    lead = lead_of(recipe, sources)
    sizes = _tensor_sizes(recipe, lead)
    # A model is merged once here, so what the engine would keep for the next one is not wanted.
    stream = MergeEngine(sources, cache_bytes=0).execute(recipe)
    weights = _write_weights(stream, sizes, lead, folder, shard_bytes=shard_bytes)
    _write_configs(recipe, lead, folder, with_code=trust_remote_code)
    copy_tokenizer(tokenizer_source, folder)
    if trust_remote_code:
        _copy(lead.folder, _CODE_FILES, folder)
    return weights


def lead_of(recipe: Recipe, sources: Mapping[str, Source]) -> Source:
    """The model whose configuration and order of tensors the merge takes. Raises RecipeError."""
    reference = recipe.references[0]
    if reference not in sources:
        raise RecipeError(f"models: {reference} is not opened; it is the recipe's first model")
    return sources[reference]


def weights_bytes(recipe: Recipe, sources: Mapping[str, Source]) -> int:
    """Bytes of all the tensors of the merged model. Raises RecipeError."""
    return sum(_tensor_sizes(recipe, lead_of(recipe, sources)).values())


def _tensor_sizes(recipe: Recipe, lead: Source) -> dict[str, int]:
    """Bytes of every tensor of the merged model, in the order that the engine yields them."""
    sizes = {}
    for name in lead.structure.shapes:
        stored = lead.tensor(name)
        converted = recipe.out_dtype is not None and stored.is_floating_point()
        dtype = getattr(torch, str(recipe.out_dtype)) if converted else stored.dtype
        sizes[name] = stored.numel() * dtype.itemsize
    return sizes


def copy_tokenizer(source: Source, folder: Path) -> None:
    """Every file of a source's tokenizer, the chat templates included, byte by byte."""
    _copy(source.folder, _TOKENIZER_FILES, folder)


def shard_names(sizes: Mapping[str, int], shard_bytes: int) -> dict[str, str]:
    """tensor name -> file name, in the names that transformers gives.

    Tensors stay in their order and a shard is closed before it would pass `shard_bytes`, so that
    the stream can be written as it comes. A larger tensor has a shard of its own.
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


def _write_weights(
    stream: Iterable[tuple[str, torch.Tensor]],
    sizes: Mapping[str, int],
    lead: Source,
    folder: Path,
    *,
    shard_bytes: int,
) -> Weights:
    weight_map = shard_names(sizes, shard_bytes)
    for file, tensors in _shards(stream, weight_map):
        path = inside(folder, file)
        save_file(tensors, path, metadata={"format": "pt"})
        path.chmod(0o644)  # safetensors makes it readable by its owner alone
        del tensors
    total_bytes = sum(sizes.values())
    files = tuple(dict.fromkeys(weight_map.values()))
    if len(files) > 1:
        counts = (torch.Size(shape).numel() for shape in lead.structure.shapes.values())
        metadata = {"total_parameters": sum(counts), "total_size": total_bytes}
        _write_json(folder, _INDEX, {"metadata": metadata, "weight_map": weight_map}, sort=True)
    return Weights(files=files, tensors=len(weight_map), size_bytes=total_bytes)


def _shards(
    stream: Iterable[tuple[str, torch.Tensor]], weight_map: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """(file name, its tensors), each as soon as it is full; one is held at a time."""
    held: dict[str, torch.Tensor] = {}
    current: str | None = None
    for name, tensor in stream:
        file = weight_map[name]
        if current is not None and file != current:
            yield current, held
            held = {}
        current = file
        held[name] = tensor.contiguous()
    if current is not None:
        yield current, held


def _write_configs(recipe: Recipe, lead: Source, folder: Path, *, with_code: bool) -> None:
    """config.json and, where the lead model has one, generation_config.json."""
    config = dict(lead.config)
    # An old transformers wrote the place a model was loaded from: a path of someone's machine.
    config.pop("_name_or_path", None)
    if not with_code:
        config.pop("auto_map", None)  # it names modelling code that is not copied
    dtype = recipe.out_dtype or lead.structure.dtype
    config = {**_with_dtype(config, dtype), "dtype": dtype}
    nested = config.get("text_config")
    if isinstance(nested, Mapping):
        config["text_config"] = _with_dtype(nested, dtype)
    _write_json(folder, "config.json", config)
    _copy(lead.folder, ("generation_config.json",), folder)


def _with_dtype(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """The new storage dtype under whichever keys the config says it: old and new transformers."""
    said = {key: dtype for key in ("dtype", "torch_dtype") if key in config}
    return {**config, **said}


def _copy(source: Path, patterns: Sequence[str], folder: Path) -> None:
    paths = {path for pattern in patterns for path in source.glob(pattern)}
    for path in sorted(path for path in paths if path.is_file()):
        target = inside(folder, str(path.relative_to(source)))
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)  # contents only: a hub's cache holds links to its blobs


def _write_json(folder: Path, name: str, document: object, *, sort: bool = False) -> None:
    text = json.dumps(document, indent=2, sort_keys=sort, ensure_ascii=False) + "\n"
    inside(folder, name).write_text(text, encoding="utf-8")
