"""The configuration of a merged checkpoint: config.json and generation_config.json.

Weights and tokenizers are written elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evomerge.export.folder import write_json
from evomerge.export.tokenizer_files import write_generation_config
from evomerge.merge.generation_settings import changed_generation
from evomerge.merge.merged_config import merged_config
from evomerge.merge.plan import Plan
from evomerge.recipe import Recipe
from evomerge.sources import Source


def write_configs(
    recipe: Recipe, plan: Plan, sources: Mapping[str, Source], folder: Path, *, with_code: bool
) -> None:
    """Write config.json and, where the lead model has one, generation_config.json.

    plan: of the recipe over these sources, by reference. with_code: whether the modelling code that
    a configuration names is copied along. Raises RecipeError where a configuration cannot say how
    the layers lie now.
    """
    config = merged_config(recipe, plan, sources)
    if not with_code:
        config.pop("auto_map", None)
    write_json(folder, "config.json", config)
    write_generation_config(sources[plan.lead], folder, changed_generation(recipe))
