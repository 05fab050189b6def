"""The live models of the transformers engine: they turn a recipe into an engine with its model.

Merges and single models are written into live models in place. A route runs over the layers of its
models, which are loaded once and never copied.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from evomerge.evaluate import Engine, RoutedEngine, TransformersEngine
from evomerge.merge import MergeEngine
from evomerge.recipe import Recipe
from evomerge.sources import Source
from evomerge.vocabulary import config_folder, settings_of
from evomerge.workers.built_models import BuiltModels, check_buildable
from evomerge.workers.preparation.prepared_job import PreparedJob
from evomerge.workers.scoring_engine import ScoringEngine


class TransformersModels:
    """Engines on one device; see EngineModels."""

    def __init__(self, preparation: PreparedJob, *, device: str) -> None:
        self._preparation = preparation
        self._device = device
        self._built = BuiltModels(self._build, device=device)
        self._routed: tuple[str, RoutedEngine] | None = None

    def expect(self, routes: Sequence[Recipe], *, sources: Mapping[str, Source]) -> None:
        """Announce the routes that come next: what they share is reused; see EngineModels."""
        self._routed_from(routes[0], sources).expect(routes)

    def hold(self, recipe: Recipe, *, sources: Mapping[str, Source], merge: MergeEngine) -> Engine:
        """The engine with the recipe's model in it; see EngineModels."""
        if recipe.route is None:
            return self._built.hold(recipe, sources=sources, merge=merge)
        engine = self._routed_from(recipe, sources)
        engine.follow(recipe, sources)
        return engine

    def forget_stages(self) -> None:
        """Drop the layers of stages; see EngineModels."""
        self._routed = None

    def release(self) -> None:
        """Drop the live models; they are made again when needed."""
        had_routed = self._routed is not None
        self._routed = None
        if had_routed:
            gc.collect()
        self._built.release()

    def _routed_from(self, recipe: Recipe, sources: Mapping[str, Source]) -> RoutedEngine:
        first = recipe.references[0]
        if self._routed is None or self._routed[0] != first:
            self._routed = None  # gives the memory back before the next is made
            if self._device.startswith("cuda"):
                self._built.release()  # a GPU may not hold both
                torch.cuda.empty_cache()
            engine = RoutedEngine(
                sources[first],
                tokenizer=self._preparation.tokenizer,
                settings=settings_of(sources[first]),
                dtype=self._preparation.out_dtype,
                device=self._device,
                batch_size=self._preparation.job.evaluation.batch_size,
                trust_remote_code=self._preparation.job.models.trust_remote_code,
                prefix_bytes=int(self._preparation.job.compute.prefix_gb * 10**9),
            )
            self._routed = first, engine
        return self._routed[1]

    def _build(self, lead: Source, config: Mapping[str, Any]) -> TransformersEngine:
        if self._device.startswith("cuda"):
            self._routed = None  # a GPU may not hold both
            torch.cuda.empty_cache()
        return TransformersEngine(
            config_folder(lead),
            config=config,
            tokenizer=self._preparation.tokenizer,
            settings=settings_of(lead),
            dtype=self._preparation.out_dtype,
            device=self._device,
            batch_size=self._preparation.job.evaluation.batch_size,
            trust_remote_code=self._preparation.job.models.trust_remote_code,
        )


TRANSFORMERS = ScoringEngine(
    name="transformers", open_models=TransformersModels, check_job=check_buildable
)
