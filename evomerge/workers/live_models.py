"""The live models of one worker: they turn a recipe into an engine that holds its model.

The job's engine makes the live models. Here the stages that recipes are made of are opened, and
each model gets its generation settings: a merge has those of its export, a single model has its
own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import GenerationConfig

from evomerge.evaluate import Engine
from evomerge.merge import (
    MergeEngine,
    TensorCache,
    generation_config,
    lead_reference,
    merged_generation,
    open_stages,
)
from evomerge.recipe import Recipe
from evomerge.sources import Source
from evomerge.workers.engines import engine_errors, engine_of
from evomerge.workers.preparation.models_alone import ModelAlone
from evomerge.workers.preparation.prepared_job import PreparedJob


class LiveModels:
    """Engines on one device, made when the first recipe of their kind comes.

    cache_folder: where large arrays of the tensor cache are kept, beside the run.
    """

    def __init__(self, preparation: PreparedJob, *, device: str, cache_folder: Path | None) -> None:
        self._preparation = preparation
        self._device = device
        self._cache_folder = cache_folder
        self._stages: Mapping[str, Recipe] = {}
        self._sources: Mapping[str, Source] = preparation.sources
        self._merge = self._engine_over(self._sources)
        self._generations: dict[str, GenerationConfig] = {}
        engine = engine_of(preparation.job.compute)
        with engine_errors(engine, "make its live models"):
            self._models = engine.open_models(preparation, device=device)

    def expect(self, recipes: Sequence[Recipe]) -> None:
        """Announce the recipes that come next, on the same items: what routes share is reused."""
        routes = [recipe for recipe in recipes if recipe.route is not None]
        if routes:
            self._follow_stages(routes[0])
            self._models.expect(routes, sources=self._sources)

    def hold(self, recipe: Recipe) -> Engine:
        """The engine with the recipe's model in it. Raises RecipeError, SourceError."""
        alone = self._preparation.alone_in(recipe)
        if alone is not None:
            return self._hold_alone(recipe, alone)
        self._follow_stages(recipe)
        engine = self._models.hold(recipe, sources=self._sources, merge=self._merge)
        engine.use(
            tokenizer=self._preparation.tokenizer,
            generation=self._generation_of(recipe),
            where=lead_reference(recipe, self._sources),
        )
        return engine

    def _hold_alone(self, recipe: Recipe, model: ModelAlone) -> Engine:
        """Hold a single model, with its own configuration, tokenizer and generation settings."""
        source = model.source
        sources = {source.reference: source}
        known = self._sources.get(source.reference) is source
        merge = self._merge if known else MergeEngine(sources, cache=TensorCache(limit_bytes=0))
        engine = self._models.hold(recipe, sources=sources, merge=merge)
        engine.use(tokenizer=model.tokenizer, generation=model.generation, where=source.reference)
        return engine

    def _generation_of(self, recipe: Recipe) -> GenerationConfig:
        """The generation settings of the merge's export; the same object for the same settings."""
        changes = self._preparation.settings.generation(recipe, self._sources)
        name = lead_reference(recipe, self._sources)
        key = json.dumps([name, dict(changes)], sort_keys=True, default=str)
        if key not in self._generations:
            lead = self._sources[name]
            stated = merged_generation(changes, lead)
            self._generations[key] = generation_config(stated, lead.config, where=lead.reference)
        return self._generations[key]

    def release(self) -> None:
        """Free the memory of live models and cache; they are made again when needed."""
        self._merge = self._engine_over(self._sources)
        self._models.release()
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _follow_stages(self, recipe: Recipe) -> None:
        """Open the named merges that the recipe is made of; they stay open for later recipes."""
        used = recipe.used_stages
        if all(self._stages.get(name) == stage for name, stage in used.items()):
            return
        self._models.forget_stages()
        self._sources = open_stages(recipe, self._preparation.sources)
        self._stages = used
        self._generations = {}
        self._merge = self._engine_over(self._sources)

    def _engine_over(self, sources: Mapping[str, Source]) -> MergeEngine:
        """A merge engine over these sources.

        Its cached facts about stages are in a folder of these stages, because a name may mean
        another stage later.
        """
        compute, folder = self._preparation.job.compute, self._cache_folder
        if folder is not None and self._stages:
            stated = "".join(stage.to_yaml() for stage in self._stages.values())
            folder = folder / hashlib.sha256(stated.encode()).hexdigest()[:16]
        cache = TensorCache(limit_bytes=int(compute.cache_gb * 10**9), folder=folder)
        return MergeEngine(sources, cache=cache, device=self._device)
