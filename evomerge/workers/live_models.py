"""The live models of one worker: a recipe in, the engine that holds its model out.

Merges of the job's own depth are written into one live model in place, and so are models by
themselves; where the configuration asks for another forward pass it is built anew. A route runs
over the layers of its models, which are loaded once and never copied. A recipe of slices that is
deeper or shallower gets a live model of its own. Where the job asks for vLLM, its live models take
them all. Every model has the settings that it is exported with, and one by itself its own. Nothing
here scores anything.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from evomerge.evaluate import Engine, RoutedEngine, TransformersEngine
from evomerge.merge import (
    MergeEngine,
    TensorCache,
    generation_config,
    lead_reference,
    merged_config,
    merged_generation,
    open_stages,
    pass_key,
)
from evomerge.recipe import Recipe
from evomerge.sources import Source
from evomerge.vocabulary import config_folder, settings_of
from evomerge.workers.preparation.models_alone import ModelAlone
from evomerge.workers.preparation.prepared_job import PreparedJob
from evomerge.workers.vllm_models import ServedModels


class LiveModels:
    """Engines on one device, made when the first recipe of their kind comes.

    cache_folder: where large arrays of the tensor cache are kept, beside the run.
    """

    def __init__(self, preparation: PreparedJob, *, device: str, cache_folder: Path | None) -> None:
        self._preparation = preparation
        self._device = device
        self._facts_folder = cache_folder
        self._prefix_bytes = int(preparation.job.compute.prefix_gb * 10**9)
        self._stages: Mapping[str, Recipe] = {}
        self._sources: Mapping[str, Source] = preparation.sources
        self._merge = self._engine_over(self._sources)
        self._plain: tuple[str, TransformersEngine] | None = None
        self._sliced: tuple[object, TransformersEngine] | None = None
        self._routed: tuple[str, RoutedEngine] | None = None
        self._generations: dict[str, GenerationConfig] = {}
        self._served: ServedModels | None = None
        if preparation.job.compute.engine == "vllm":
            self._served = ServedModels(preparation, device=device)

    def expect(self, recipes: Sequence[Recipe]) -> None:
        """Which recipes come next, on the same items: what their routes share is computed once."""
        routes = [recipe for recipe in recipes if recipe.route is not None]
        if routes and self._served is not None:
            self._served.expect(routes)
        elif routes:
            self._follow_stages(routes[0])
            self._routed_from(routes[0]).expect(routes)

    def hold(self, recipe: Recipe) -> Engine:
        """The engine with the recipe's model in it. Raises RecipeError, SourceError."""
        alone = self._preparation.alone_in(recipe)
        if alone is not None:
            return self._hold_alone(recipe, alone)
        self._follow_stages(recipe)
        engine: Engine
        if self._served is not None:
            engine = self._served.hold(recipe, sources=self._sources, merge=self._merge)
        elif recipe.route is not None:
            engine = routed = self._routed_from(recipe)
            routed.follow(recipe, self._sources)
        else:
            engine = self._engine_for(recipe)
            engine.load(self._merge.execute(recipe, into=engine.destination))
        engine.use(
            tokenizer=self._preparation.tokenizer,
            generation=self._generation_of(recipe),
            where=lead_reference(recipe, self._sources),
        )
        return engine

    def _hold_alone(self, recipe: Recipe, model: ModelAlone) -> Engine:
        """The model with its own configuration, vocabulary, tokenizer and generation settings."""
        source = model.source
        sources = {source.reference: source}
        known = self._sources.get(source.reference) is source
        merge = self._merge if known else MergeEngine(sources, cache=TensorCache(limit_bytes=0))
        engine: Engine
        if self._served is not None:
            engine = self._served.hold(recipe, sources=sources, merge=merge)
        else:
            engine = self._plain_for(source)
            engine.load(merge.execute(recipe, into=engine.destination))
        engine.use(tokenizer=model.tokenizer, generation=model.generation, where=source.reference)
        return engine

    def _generation_of(self, recipe: Recipe) -> GenerationConfig:
        """What the merge is exported with; the same object for the same settings."""
        changes = self._preparation.settings.generation(recipe, self._sources)
        name = lead_reference(recipe, self._sources)
        key = json.dumps([name, dict(changes)], sort_keys=True, default=str)
        if key not in self._generations:
            lead = self._sources[name]
            stated = merged_generation(changes, lead)
            self._generations[key] = generation_config(stated, lead.config, where=lead.reference)
        return self._generations[key]

    def release(self) -> None:
        """Give back the memory of live models and cache; they are made again when needed."""
        live = self._plain or self._sliced or self._routed
        self._plain = self._sliced = self._routed = None
        self._merge = self._engine_over(self._sources)
        if live:
            gc.collect()
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _follow_stages(self, recipe: Recipe) -> None:
        """Open the named merges that the recipe is made of, which stay for those that follow."""
        used = recipe.used_stages
        if all(self._stages.get(name) == stage for name, stage in used.items()):
            return
        self._stages = used
        self._routed = None
        self._generations = {}
        self._sources = open_stages(recipe, self._preparation.sources)
        self._merge = self._engine_over(self._sources)

    def _engine_over(self, sources: Mapping[str, Source]) -> MergeEngine:
        """Facts about stages are kept apart by what those are: a name may stand for another."""
        compute, folder = self._preparation.job.compute, self._facts_folder
        if folder is not None and self._stages:
            stated = "".join(stage.to_yaml() for stage in self._stages.values())
            folder = folder / hashlib.sha256(stated.encode()).hexdigest()[:16]
        cache = TensorCache(limit_bytes=int(compute.cache_gb * 10**9), folder=folder)
        return MergeEngine(sources, cache=cache, device=self._device)

    def _make_room(self) -> None:
        """Before another kind of live model on a GPU: it may not hold both."""
        if self._device.startswith("cuda"):
            self._plain = self._sliced = self._routed = None
            torch.cuda.empty_cache()

    def _routed_from(self, recipe: Recipe) -> RoutedEngine:
        first = recipe.references[0]
        if self._routed is None or self._routed[0] != first:
            self._routed = None  # gives the memory back before the next is made
            self._make_room()
            preparation, evaluation = self._preparation, self._preparation.job.evaluation
            engine = RoutedEngine(
                self._sources[first],
                tokenizer=preparation.tokenizer,
                settings=settings_of(self._sources[first]),
                dtype=preparation.out_dtype,
                device=self._device,
                batch_size=evaluation.batch_size,
                trust_remote_code=preparation.job.models.trust_remote_code,
                prefix_bytes=self._prefix_bytes,
            )
            self._routed = first, engine
        return self._routed[1]

    def _engine_for(self, recipe: Recipe) -> TransformersEngine:
        if recipe.slices is None and recipe.modules is None:
            return self._plain_for(self._sources[lead_reference(recipe, self._sources)])
        plan = self._merge.plan(recipe)
        layers = (plan.lead, {prefix: tuple(found) for prefix, found in plan.layers.items()})
        if self._sliced is None or self._sliced[0] != layers:
            self._sliced = None
            self._make_room()
            config = merged_config(recipe, plan, self._sources)
            self._sliced = layers, self._build(self._sources[plan.lead], config)
        return self._sliced[1]

    def _plain_for(self, lead: Source) -> TransformersEngine:
        """A live model with the configuration of `lead`: what is there, if it passes texts alike.

        Only one is kept, for they are as large as the models.
        """
        key = pass_key(lead.config)
        if self._plain is None or self._plain[0] != key:
            self._plain = None  # gives the memory back before the next is made
            self._make_room()
            self._plain = key, self._build(lead, lead.config)
        return self._plain[1]

    def _build(self, lead: Source, config: Mapping[str, Any]) -> TransformersEngine:
        preparation = self._preparation
        return TransformersEngine(
            config_folder(lead),
            config=config,
            tokenizer=preparation.tokenizer,
            settings=settings_of(lead),
            dtype=preparation.out_dtype,
            device=self._device,
            batch_size=preparation.job.evaluation.batch_size,
            trust_remote_code=preparation.job.models.trust_remote_code,
        )
