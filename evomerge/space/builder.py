"""Builds the search space of a job from its description and the job's models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from evomerge.errors import JobError, RecipeError
from evomerge.recipe import DType, Recipe, read_recipe
from evomerge.sources import Structure
from evomerge.space.base import SearchSpace
from evomerge.space.document import find_space, read_space
from evomerge.space.parameters.layout import lay_out
from evomerge.space.parameters.parameter_space import ParameterSpace
from evomerge.space.parameters.specification import parse_space
from evomerge.space.routes.data_flow import DataFlowSpace
from evomerge.space.routes.layout import lay_routes
from evomerge.space.routes.specification import parse_routes


def build_space(
    spec: str | Mapping[str, Any],
    *,
    base: str,
    sources: Sequence[str],
    structure: Structure,
    out_dtype: DType,
    seed: int,
    statistics: str | None = None,
    stages: Mapping[str, Recipe] | None = None,
) -> SearchSpace:
    """The search space of a job.

    spec: a name in search_spaces/, a path, or a mapping; one with the key `routes` is a data-flow
    space (`routes/specification.py` has its keys), any other a parameter space
    (`parameters/specification.py`).
    base, sources: references as recipes write them. out_dtype: storage dtype of every recipe. seed:
    of all random masks, one for the whole search, so that a genome always gives the same model.
    statistics: folder with statistics of base and sources, which some methods need. stages: merges
    that some of the references name; every recipe of the space contains them. Raises JobError in
    one line.
    """
    where = str(find_space(spec)) if isinstance(spec, str) else "search_space"
    document = read_space(spec)
    space: ParameterSpace | DataFlowSpace
    if "routes" in document:
        routes = parse_routes(document, where=where)
        start_from = routes.start_from
        space = DataFlowSpace(
            lay_routes(
                routes,
                base=base,
                sources=sources,
                structure=structure,
                out_dtype=out_dtype,
                stages=stages or {},
            )
        )
    else:
        parsed = parse_space(document, where=where)
        start_from = parsed.start_from
        space = ParameterSpace(
            lay_out(
                parsed,
                base=base,
                sources=sources,
                structure=structure,
                out_dtype=out_dtype,
                seed=seed,
                statistics=statistics,
                stages=stages or {},
            )
        )
    if start_from is None:
        return space
    place = f"{where}.start_from"
    return space.starting_from(_start(start_from, place), where=place)


def _start(written: object, place: str) -> Recipe:
    if not isinstance(written, Mapping):
        raise JobError(f"{place}: {written}: give the path of a recipe")
    try:
        return read_recipe(yaml.safe_dump(dict(written)), where=place)
    except RecipeError as error:
        raise JobError(str(error)) from error
