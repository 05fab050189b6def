"""The configuration of a merged checkpoint: config.json and generation_config.json.

They are those of the model that leads the merge, with what the merge changed put right. Weights and
tokenizers are written elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evomerge.export.folder import write_json
from evomerge.export.layer_settings import with_layers
from evomerge.export.tokenizer_files import write_generation_config
from evomerge.merge.pieces import Layer
from evomerge.recipe import Recipe
from evomerge.sources import Source


def write_configs(
    recipe: Recipe,
    lead: Source,
    folder: Path,
    *,
    with_code: bool,
    layers: Mapping[str, Sequence[Layer]],
    sources: Mapping[str, Source],
) -> None:
    """Write config.json and, where the lead model has one, generation_config.json.

    layers: of the plan, for a recipe of slices: each layer brings its own settings along. sources:
    the models those are from, by reference. Raises RecipeError where a configuration cannot say how
    the layers lie now.
    """
    config = dict(lead.config)
    # An old transformers wrote the place a model was loaded from: a path of someone's machine.
    config.pop("_name_or_path", None)
    if not with_code:
        config.pop("auto_map", None)  # it names modelling code that is not copied
    dtype = recipe.out_dtype or lead.structure.dtype
    config = {**_with_dtype(config, dtype), "dtype": dtype}
    for key, nested in config.items():
        if key.endswith("_config") and isinstance(nested, Mapping):
            config[key] = _with_dtype(nested, dtype)
    if layers:
        config = with_layers(config, layers, lead, sources)
    write_json(folder, "config.json", config)
    write_generation_config(lead, folder)


def _with_dtype(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """The new storage dtype under whichever keys the config says it: old and new transformers."""
    said = {key: dtype for key in ("dtype", "torch_dtype") if key in config}
    return {**config, **said}
