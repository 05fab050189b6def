"""A merged checkpoint on disk, as transformers itself would have saved it.

The tensors of the merge engine go into safetensors shards. The leading model's configuration and a
tokenizer are written beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evomerge.deferred import torch
from evomerge.export.companions import Beside, find_beside
from evomerge.export.folder import copy_files, copy_into, write_json
from evomerge.export.shards import SHARD_BYTES, Form, Room, Weights, write_weights
from evomerge.merge import (
    ELEMENT_TYPES,
    Destination,
    Elements,
    MergeEngine,
    Plan,
    TensorCache,
    changed_generation,
    check_finite,
    check_loadable,
    compiled_merge,
    merged_config,
    merged_dtype,
    merged_generation,
)
from evomerge.recipe import Recipe
from evomerge.sources import Source, read_json, read_weights
from evomerge.vocabulary import (
    GENERATION_CONFIG,
    TOKENIZER_FILES,
    AlignedSource,
    generation_file_of,
    settings_of,
    tokenizer_folder,
)

# The tokenizer of a merged checkpoint, with its chat templates and its generation settings.


_OBJECTS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
"""Files of a tokenizer that hold one JSON object each."""


def check_tokenizer(source: Source) -> None:
    """Raise SourceError for a damaged tokenizer, because its copy would not load either."""
    if isinstance(source, AlignedSource) and source.tokenizer is not None:
        return
    folder = tokenizer_folder(source) or source.folder
    for file in (folder / name for name in _OBJECTS):
        if file.exists():
            read_json(file, source.reference)


def copy_tokenizer(source: Source, folder: Path) -> None:
    """Copy the tokenizer of a source byte by byte, with its chat templates.

    An adapter without a tokenizer has its base's. The tokenizer of an aligned source is written by
    transformers.
    """
    if isinstance(source, AlignedSource) and source.tokenizer is not None:
        source.tokenizer.save_pretrained(folder)
    else:
        copy_files(tokenizer_folder(source) or source.folder, TOKENIZER_FILES, folder)


def write_generation_config(
    lead: Source, folder: Path, changes: Mapping[str, Any] | None = None
) -> None:
    """Write the leading model's generation_config.json, if it has one, for the result's tokens.

    changes: settings to add to it. Without changes it is copied byte by byte.
    """
    file = generation_file_of(lead)
    if file is not None and not changes and not settings_of(lead).generation:
        copy_files(file.parent, (GENERATION_CONFIG,), folder)
        return
    stated = merged_generation(changes or {}, lead)
    if stated is not None:
        write_json(folder, GENERATION_CONFIG, stated)


# The configuration of a merged checkpoint: config.json and generation_config.json.


def write_configs(
    recipe: Recipe, plan: Plan, sources: Mapping[str, Source], folder: Path, *, with_code: bool
) -> None:
    """Write config.json and, where the lead model has one, generation_config.json.

    plan: of the recipe for these sources, by reference. with_code: whether the modelling code that
    a configuration names is copied too. Raises RecipeError if a configuration cannot express the
    new order of layers.
    """
    config = merged_config(recipe, plan, sources)
    if not with_code:
        config.pop("auto_map", None)
    write_json(folder, "config.json", config)
    write_generation_config(sources[plan.lead], folder, changed_generation(recipe))


def write_checkpoint(
    recipe: Recipe,
    sources: Mapping[str, Source],
    tokenizer_source: Source,
    folder: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    trust_remote_code: bool = False,
) -> Weights:
    """Execute a recipe into an existing folder.

    sources: opened checkpoints by the references of the recipe. shard_bytes: largest shard, unless
    one tensor alone is larger. trust_remote_code: whether config.json keeps the model's own code
    even if transformers has code for it too, and whether that code may run to check that the
    result loads. Raises RecipeError and SourceError before anything is written, MergeError for a
    tensor that is not finite.
    """
    # Only one model is merged here, so the engine has no use for a cache.
    engine = MergeEngine(sources, cache=TensorCache(limit_bytes=0))
    plan = engine.plan(recipe)
    compiled = compiled_merge(recipe, plan, sources)
    beside = beside_weights(recipe, sources, tokenizer_source, trust_remote_code=trust_remote_code)
    check_tokenizer(tokenizer_source)
    forms = _forms(recipe, plan, sources)
    code = sources[plan.lead].folder if trust_remote_code else None
    shapes = {name: form.shape for name, form in forms.items()}
    loadable = check_loadable(merged_config(recipe, plan, sources), shapes, code=code)
    written = {name: form for name, form in forms.items() if name not in loadable.left_out}

    def make(order: Sequence[str], room: Room) -> Iterator[tuple[str, torch.Tensor | Elements]]:
        if compiled is not None:
            return _finite(compiled.execute(_elements(forms, room), order), plan, sources)
        stream = engine.execute(recipe, into=_tensors(forms, room), order=order)
        return _finite(stream, plan, sources)

    weights = write_weights(make, written, folder, shard_bytes=shard_bytes)
    write_configs(recipe, plan, sources, folder, with_code=beside.code)
    copy_into(folder, beside.files)
    copy_tokenizer(tokenizer_source, folder)
    _check_written(folder, code=folder if trust_remote_code else None)
    return replace(weights, notes=loadable.notes)


def _finite(
    stream: Iterable[tuple[str, torch.Tensor | Elements]],
    plan: Plan,
    sources: Mapping[str, Source],
) -> Iterator[tuple[str, torch.Tensor | Elements]]:
    """The tensors. Raises MergeError for one that is not finite."""
    for name, tensor in stream:
        check_finite(name, tensor, plan, sources)
        yield name, tensor


def _check_written(folder: Path, *, code: Path | None) -> None:
    """Check that the written files load, by the names and shapes in them."""
    named = "the merged model"
    entries = read_weights(folder, named)
    shapes = {name: entry.shape for name, entry in entries.items()}
    found = check_loadable(read_json(folder / "config.json", named), shapes, code=code)
    assert not found.left_out, found.left_out


def beside_weights(
    recipe: Recipe,
    sources: Mapping[str, Source],
    tokenizer_source: Source,
    *,
    trust_remote_code: bool,
) -> Beside:
    """The files beside the weights of the merged model. Raises RecipeError, SourceError."""
    lead = sources[MergeEngine(sources).plan(recipe).lead]
    merged = [sources[reference] for reference in recipe.references]
    return find_beside(lead, tokenizer_source, merged, trust_remote_code=trust_remote_code)


def weights_bytes(recipe: Recipe, sources: Mapping[str, Source]) -> int:
    """Bytes of all the tensors of the merged model. Raises RecipeError."""
    plan = MergeEngine(sources).plan(recipe)
    return sum(form.size_bytes for form in _forms(recipe, plan, sources).values())


def _forms(recipe: Recipe, plan: Plan, sources: Mapping[str, Source]) -> dict[str, Form]:
    """Shape and dtype of each tensor that the engine will yield, in its order."""
    structures = {name: source.structure for name, source in sources.items()}
    return {
        tensor.name: Form(tensor.shape, merged_dtype(tensor, recipe, structures))
        for tensor in plan.tensors
    }


def _elements(forms: Mapping[str, Form], room: Room) -> Callable[[str], Elements]:
    """Gives the memory that a tensor is written from, without torch."""

    def give(name: str) -> Elements:
        form = forms[name]
        return Elements(room(name).view(ELEMENT_TYPES[form.dtype]), form.dtype, form.shape)

    return give


def _tensors(forms: Mapping[str, Form], room: Room) -> Destination:
    """Gives the memory that a tensor is written from."""

    def give(name: str) -> torch.Tensor:
        form = forms[name]
        dtype: torch.dtype = getattr(torch, form.dtype)
        return torch.from_numpy(room(name)).view(dtype).view(form.shape)

    return give
