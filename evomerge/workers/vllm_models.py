"""The live vLLM models of one worker: they turn a recipe into an engine that holds its model.

vLLM builds a model once, with a fixed number of layers. A route, or a recipe of slices, is loaded
into a live model that has enough layers; the layers left over do nothing.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from evomerge.errors import JobError, SourceError
from evomerge.evaluate import (
    VllmEngine,
    blank_layers,
    check_answers,
    check_served,
    refuse_several_runs,
    vllm_version,
)
from evomerge.merge import (
    Layer,
    MergeEngine,
    Plan,
    lead_reference,
    merged_config,
    pass_key,
    with_layers,
)
from evomerge.recipe import Recipe
from evomerge.route import fold, hops_of
from evomerge.sources import Source
from evomerge.space import read_space
from evomerge.vocabulary import config_folder, settings_of
from evomerge.workers.preparation.prepared_job import PreparedJob
from evomerge.workers.scoring_engine import ScoringEngine


@dataclass(frozen=True, kw_only=True)
class _Deep:
    """A live model for layers that are put together. lead: source of its generation settings."""

    lead: str
    config: Mapping[str, Any]
    depth: int
    engine: VllmEngine


def check_job(preparation: PreparedJob, *, device: str) -> None:
    """Raise InputError, in one line, for a job that vLLM cannot run here; starts nothing."""
    job, lead = preparation.job, preparation.lead
    if job.models.trust_remote_code:
        raise JobError(
            "models.trust_remote_code: vllm builds models with its own code; leave it out, or set "
            "compute.engine to transformers"
        )
    refuse_several_runs(lead.structure, where=lead.reference)
    for source in (lead, *(model.source for model in preparation.alone.values())):
        check_served(source.structure.architecture, device=device, where=source.reference)
    if preparation.suite.generates:
        for model in preparation.alone.values():
            check_answers(model.generation, where=model.source.reference)
    if any("routes" in read_space(search.search_space) for search in job.searches):
        for name, source in preparation.sources.items():
            _check_route_through(source, where=name)


class ServedModels:
    """Engines on one device; see EngineModels."""

    def __init__(self, preparation: PreparedJob, *, device: str) -> None:
        self._preparation = preparation
        self._device = device
        self._plain: tuple[str, VllmEngine] | None = None
        self._deep: _Deep | None = None
        self._longest_route = 0

    def expect(self, routes: Sequence[Recipe], *, sources: Mapping[str, Source]) -> None:
        """Announce the routes that come next, so that a live model is deep enough for all."""
        self._longest_route = max(len(hops_of(recipe)) for recipe in routes)

    def hold(
        self, recipe: Recipe, *, sources: Mapping[str, Source], merge: MergeEngine
    ) -> VllmEngine:
        """The engine with the recipe's model in it; see EngineModels."""
        structures = {name: sources[name].structure for name in recipe.references}
        if recipe.route is not None:
            for name in structures:
                _check_route_through(sources[name], where=name)
        flat = fold(recipe, structures)
        if flat.slices is None and flat.modules is None:
            engine = self._plain_for(sources[lead_reference(flat, sources)])
            engine.load(merge.execute(flat))
            return engine
        plan = merge.plan(flat)
        structure = sources[plan.lead].structure
        refuse_several_runs(structure, where=plan.lead)
        deep = self._deep_for(flat, plan, sources)
        blanks = blank_layers(
            structure,
            depth=len(plan.layers[structure.layer_prefix]),
            live_depth=deep.depth,
            dtype=self._preparation.out_dtype,
        )
        deep.engine.load(itertools.chain(merge.execute(flat), blanks))
        return deep.engine

    def forget_stages(self) -> None:
        """Every recipe is loaded whole, so nothing is kept of a stage."""

    def release(self) -> None:
        """Do nothing: to start vLLM again takes longer than all other work for a candidate."""

    def _plain_for(self, lead: Source) -> VllmEngine:
        """A live model with the configuration of `lead`; only one is kept."""
        key = pass_key(lead.config)
        if self._plain is None or self._plain[0] != key:
            self._plain = None
            gc.collect()
            self._make_room()
            self._plain = key, self._build(lead, lead.config)
        return self._plain[1]

    def _deep_for(self, flat: Recipe, plan: Plan, sources: Mapping[str, Source]) -> _Deep:
        """A live model that has room for the recipe's layers: the kept one, or a new one."""
        lead = sources[plan.lead]
        prefix = lead.structure.layer_prefix
        layers = plan.layers[prefix]

        def config_of(depth: int) -> dict[str, Any]:
            padded = (*layers, *[layers[-1]] * (depth - len(layers)))
            return merged_config(flat, replace(plan, layers={prefix: padded}), sources)

        kept = self._deep
        if (
            kept is not None
            and kept.lead == plan.lead
            and kept.depth >= len(layers)
            and kept.config == config_of(kept.depth)
        ):
            return kept
        self._deep = None
        gc.collect()
        self._make_room()
        depth = max(len(layers), self._longest_route)
        config = config_of(depth)
        engine = self._build(lead, config)
        self._deep = _Deep(lead=plan.lead, config=config, depth=depth, engine=engine)
        return self._deep

    def _make_room(self) -> None:
        """Free a GPU before another live model is built: it may not hold both."""
        if self._device.startswith("cuda"):
            self._plain = self._deep = None
            gc.collect()  # vLLM's objects refer to each other; its own shutdown would end all
            torch.cuda.empty_cache()

    def _build(self, lead: Source, config: Mapping[str, Any]) -> VllmEngine:
        preparation = self._preparation
        return VllmEngine(
            config_folder(lead),
            config=config,
            tokenizer=preparation.tokenizer,
            settings=settings_of(lead),
            dtype=preparation.out_dtype,
            longest_tokens=preparation.longest_tokens,
            device=self._device,
            batch_size=preparation.job.evaluation.batch_size,
        )


def _check_route_through(source: Source, *, where: str) -> None:
    """Raise SourceError for a model with layers that cannot take any place of a live one."""
    stack = source.structure.stacks[0]
    first, *others = (
        with_layers(
            dict(source.config),
            {stack.prefix: [Layer(source.reference, number)]},
            source,
            {source.reference: source},
        )
        for number in range(stack.depth)
    )
    if any(other != first for other in others):
        raise SourceError(
            f"{where}: its layers are of several kinds, and vllm fixes the kind of each place; set "
            "compute.engine to transformers"
        )


def _versions() -> dict[str, str]:
    return {"vllm": vllm_version()}


VLLM = ScoringEngine(
    name="vllm",
    open_models=ServedModels,
    check_job=check_job,
    module="vllm",
    install=(
        "install the extra `vllm` into an environment of its own (pip install 'evomerge[vllm]', in "
        "a checkout '.[vllm]')"
    ),
    versions=_versions,
)
