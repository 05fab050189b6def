"""The configuration of a merged model: the leading model's, with what the merge changed put right.

Nothing is written here; tokenizers and generation settings are known elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge.merge.layer_kinds import check_kinds
from evomerge.merge.layer_settings import with_layers
from evomerge.merge.plan import Plan
from evomerge.recipe import Recipe
from evomerge.sources import Source


def merged_config(recipe: Recipe, plan: Plan, sources: Mapping[str, Source]) -> dict[str, Any]:
    """What the merged model's config.json says; of slices, each layer brings its own settings.

    plan: of the recipe over these sources, by reference. Raises RecipeError where a configuration
    cannot say how the layers lie now.
    """
    lead = sources[plan.lead]
    config = dict(lead.config)
    # An old transformers wrote the place a model was loaded from: a path of someone's machine.
    config.pop("_name_or_path", None)
    dtype = recipe.out_dtype or lead.structure.dtype
    config = {**_with_dtype(config, dtype), "dtype": dtype}
    for key, nested in config.items():
        if key.endswith("_config") and isinstance(nested, Mapping):
            config[key] = _with_dtype(nested, dtype)
    if not plan.layers:
        return config
    config = with_layers(config, plan.layers, lead, sources)
    check_kinds(config, plan.layers, lead, sources)
    return config


def _with_dtype(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """The new storage dtype under whichever keys the config says it: old and new transformers."""
    said = {key: dtype for key in ("dtype", "torch_dtype") if key in config}
    return {**config, **said}
