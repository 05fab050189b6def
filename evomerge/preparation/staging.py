"""The stages of a job: each searches over the winner of the one before and the job's sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from evomerge.errors import JobError
from evomerge.job import JobSpec
from evomerge.preparation.preparation import Preparation
from evomerge.recipe import DType, Recipe
from evomerge.sources import Structure
from evomerge.space import DataFlowSpace, SearchSpace, build_space


def next_stage(preparation: Preparation, winner: Recipe) -> Preparation:
    """The job in its next stage, where `winner` is the first source; by its recipe, not a copy."""
    alone = preparation.in_vocabulary(winner.model_copy(update={"stages": {}}))
    winners = {**preparation.winners, preparation.search.name: alone}
    space = stage_space(
        preparation.job,
        preparation.stage + 1,
        structure=preparation.structure,
        out_dtype=preparation.out_dtype,
        winners=winners,
    )
    return replace(preparation, space=space, stage=preparation.stage + 1, winners=winners)


def stage_space(
    job: JobSpec,
    stage: int,
    *,
    structure: Structure,
    out_dtype: DType,
    winners: Mapping[str, Recipe],
) -> SearchSpace:
    """What stage number `stage`, from 0, searches. Raises JobError in one line."""
    models = job.models
    space = build_space(
        job.searches[stage].search_space,
        base=models.base,
        sources=(*list(winners)[-1:], *models.sources),
        structure=structure,
        out_dtype=out_dtype,
        seed=job.optimizer.seed,
        statistics=models.statistics,
        stages=winners,
    )
    where = f"stages.{stage}.search_space" if job.stages else "search_space"
    routes = isinstance(space, DataFlowSpace)
    if routes and stage + 1 < len(job.searches):
        raise JobError(
            f"{where}: routes change how deep the model is, so they come last; put this stage at "
            "the end"
        )
    if models.base in models.sources and not routes:
        raise JobError(
            f"models.sources: {models.base} is the base too, so there is nothing to merge; name "
            "the experts, or a search space of routes"
        )
    return space
