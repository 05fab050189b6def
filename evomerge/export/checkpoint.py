"""A merged checkpoint on disk, as transformers itself would have saved it.

The merge engine's stream goes into safetensors shards; beside them go the leading model's
configuration and a tokenizer. Nothing here knows scores or cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from evomerge.export.companions import Beside, find_beside
from evomerge.export.folder import copy_into
from evomerge.export.model_config import write_configs
from evomerge.export.shards import SHARD_BYTES, Form, Weights, write_weights
from evomerge.export.tokenizer_files import copy_tokenizer
from evomerge.merge.engine import Destination, MergeEngine, merged_dtype
from evomerge.merge.facts import Facts
from evomerge.merge.plan import Plan
from evomerge.recipe import Recipe
from evomerge.sources import Source


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
    model's own where transformers has code for it too. Raises RecipeError and SourceError before
    anything is written.
    """
    # A model is merged once here, so what the engine would keep for the next one is not wanted.
    engine = MergeEngine(sources, facts=Facts(limit_bytes=0))
    plan = engine.plan(recipe)
    beside = beside_weights(recipe, sources, tokenizer_source, trust_remote_code=trust_remote_code)
    forms = _forms(recipe, plan, sources)
    stream = engine.execute(recipe, into=_scratch(forms))
    weights = write_weights(stream, forms, folder, shard_bytes=shard_bytes)
    write_configs(recipe, plan, sources, folder, with_code=beside.code)
    copy_into(folder, beside.files)
    copy_tokenizer(tokenizer_source, folder)
    return weights


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
