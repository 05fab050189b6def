"""Live models that are built from a configuration, and filled with one recipe after another.

Merges of the job's own depth and single models are written into one live model in place. It is
built anew if the configuration needs another forward pass. Layers that are put together have a live
model of their own. A route is taken as the layers that it is made of.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from evomerge.evaluate import Engine, check_model
from evomerge.merge import MergeEngine, lead_reference, merged_config, pass_key
from evomerge.recipe import Recipe
from evomerge.route import fold
from evomerge.sources import Source
from evomerge.vocabulary import settings_of
from evomerge.workers.preparation.prepared_job import PreparedJob

Build = Callable[[Source, Mapping[str, Any]], Engine]
"""Builds a live model without weights: like the given model, with the given configuration."""


class BuiltModels:
    """Engines on one device; see EngineModels. build: makes one."""

    def __init__(self, build: Build, *, device: str) -> None:
        self._build = build
        self._device = device
        self._plain: tuple[str, Engine] | None = None
        self._sliced: tuple[object, Engine] | None = None

    def expect(self, routes: Sequence[Recipe], *, sources: Mapping[str, Source]) -> None:
        """Do nothing: routes share nothing here."""

    def hold(self, recipe: Recipe, *, sources: Mapping[str, Source], merge: MergeEngine) -> Engine:
        """The engine with the recipe's model in it; see EngineModels."""
        flat = fold(recipe, {name: sources[name].structure for name in recipe.references})
        engine = self._engine_for(flat, sources, merge)
        engine.load(merge.execute(flat, into=engine.destination))
        return engine

    def forget_stages(self) -> None:
        """Every recipe is loaded whole, so nothing is kept of a stage."""

    def release(self) -> None:
        """Drop the live models; they are made again when needed."""
        had_models = self._plain is not None or self._sliced is not None
        self._plain = self._sliced = None
        if had_models:
            gc.collect()

    def _engine_for(
        self, recipe: Recipe, sources: Mapping[str, Source], merge: MergeEngine
    ) -> Engine:
        if recipe.slices is None and recipe.modules is None:
            return self._plain_for(sources[lead_reference(recipe, sources)])
        plan = merge.plan(recipe)
        layers = (plan.lead, {prefix: tuple(found) for prefix, found in plan.layers.items()})
        if self._sliced is None or self._sliced[0] != layers:
            self._sliced = None
            self._make_room()
            config = merged_config(recipe, plan, sources)
            self._sliced = layers, self._build(sources[plan.lead], config)
        return self._sliced[1]

    def _plain_for(self, lead: Source) -> Engine:
        """A live model for the configuration of `lead`: the kept one, if it reads texts alike.

        Only one is kept, because it is as large as a model.
        """
        key = pass_key(lead.config)
        if self._plain is None or self._plain[0] != key:
            self._plain = None  # gives the memory back before the next is made
            self._make_room()
            self._plain = key, self._build(lead, lead.config)
        return self._plain[1]

    def _make_room(self) -> None:
        """Free a GPU before another kind of live model is built: it may not hold both."""
        if self._device.startswith("cuda"):
            self._plain = self._sliced = None
            torch.cuda.empty_cache()


def check_buildable(preparation: PreparedJob, *, device: str) -> None:
    """Raise SourceError for models that transformers cannot build a live model of; see CheckJob."""
    alone = [model.source for model in preparation.alone.values()]
    kinds = {pass_key(source.config): source for source in (*alone, preparation.lead)}
    for source in kinds.values():
        check_model(
            source,
            trust_remote_code=preparation.job.models.trust_remote_code,
            settings=settings_of(source),
        )
