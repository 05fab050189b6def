"""A merged checkpoint on disk, as transformers itself would have saved it.

The merge engine's stream goes into safetensors shards; beside them go the leading model's
configuration and a tokenizer. Nothing here knows scores or cards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from evomerge.export.companions import Beside, find_beside
from evomerge.export.folder import copy_into
from evomerge.export.model_config import write_configs
from evomerge.export.shards import SHARD_BYTES, Form, Weights, write_weights
from evomerge.export.tokenizer_files import check_tokenizer, copy_tokenizer
from evomerge.merge.engine import Destination, MergeEngine, merged_dtype
from evomerge.merge.facts import Facts
from evomerge.merge.finite import check_finite
from evomerge.merge.loadable import check_loadable
from evomerge.merge.merged_config import merged_config
from evomerge.merge.plan import Plan
from evomerge.recipe import Recipe
from evomerge.sources import Source
from evomerge.sources.files import read_json, read_weights


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
    one tensor alone is larger. trust_remote_code: whether config.json keeps naming code of the
    model's own where transformers has code for it too, and that code may run to check what loads.
    Raises RecipeError and SourceError before anything is written, MergeError for a tensor that is
    not finite.
    """
    # A model is merged once here, so what the engine would keep for the next one is not wanted.
    engine = MergeEngine(sources, facts=Facts(limit_bytes=0))
    plan = engine.plan(recipe)
    beside = beside_weights(recipe, sources, tokenizer_source, trust_remote_code=trust_remote_code)
    check_tokenizer(tokenizer_source)
    forms = _forms(recipe, plan, sources)
    code = sources[plan.lead].folder if trust_remote_code else None
    shapes = {name: form.shape for name, form in forms.items()}
    loadable = check_loadable(merged_config(recipe, plan, sources), shapes, code=code)
    written = {name: form for name, form in forms.items() if name not in loadable.left_out}
    stream = _finite(engine.execute(recipe, into=_scratch(forms)), written, plan, sources)
    weights = write_weights(stream, written, folder, shard_bytes=shard_bytes)
    write_configs(recipe, plan, sources, folder, with_code=beside.code)
    copy_into(folder, beside.files)
    copy_tokenizer(tokenizer_source, folder)
    _check_written(folder, code=folder if trust_remote_code else None)
    return replace(weights, notes=loadable.notes)


def _finite(
    stream: Iterable[tuple[str, torch.Tensor]],
    written: Mapping[str, Form],
    plan: Plan,
    sources: Mapping[str, Source],
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that are written, each of finite numbers alone. Raises MergeError."""
    for name, tensor in stream:
        if name in written:
            check_finite(name, tensor, plan, sources)
            yield name, tensor


def _check_written(folder: Path, *, code: Path | None) -> None:
    """Load what was written by names and shapes, as the files themselves say them."""
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
    """What the merged model has beside its weights. Raises RecipeError, SourceError."""
    lead = sources[MergeEngine(sources).plan(recipe).lead]
    merged = [sources[reference] for reference in recipe.references]
    return find_beside(lead, tokenizer_source, merged, trust_remote_code=trust_remote_code)


def weights_bytes(recipe: Recipe, sources: Mapping[str, Source]) -> int:
    """Bytes of all the tensors of the merged model. Raises RecipeError."""
    plan = MergeEngine(sources).plan(recipe)
    return sum(form.size_bytes for form in _forms(recipe, plan, sources).values())


def _forms(recipe: Recipe, plan: Plan, sources: Mapping[str, Source]) -> dict[str, Form]:
    """What the engine will yield, in its order."""
    structures = {name: source.structure for name, source in sources.items()}
    return {
        tensor.name: Form(tensor.shape, merged_dtype(tensor, recipe, structures))
        for tensor in plan.tensors
    }


def _scratch(forms: Mapping[str, Form]) -> Destination:
    """One piece of memory for every tensor in turn, each written out before the next is made.

    Memory taken and given back tensor by tensor would leave gaps that add up to gigabytes.
    """
    memory = torch.empty(max(form.size_bytes for form in forms.values()), dtype=torch.uint8)

    def give(name: str) -> torch.Tensor:
        form = forms[name]
        return memory[: form.size_bytes].view(form.dtype).view(form.shape)

    return give
