"""Builds the search space of a job from its description and the job's models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evomerge.job import check_sections
from evomerge.recipe import DType, Recipe
from evomerge.sources import Structure
from evomerge.space.base import SearchSpace
from evomerge.space.document import find_space, read_space
from evomerge.space.parameters.layout import lay_out
from evomerge.space.parameters.parameter_space import ParameterSpace
from evomerge.space.parameters.specification import SpaceSpec
from evomerge.space.routes.data_flow import DataFlowSpace
from evomerge.space.routes.layout import lay_routes
from evomerge.space.routes.specification import DataFlowSpec


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
    written = check_space(read_space(spec), where=where)
    space: ParameterSpace | DataFlowSpace
    if isinstance(written, DataFlowSpec):
        space = DataFlowSpace(
            lay_routes(
                written.routes,
                base=base,
                sources=sources,
                structure=structure,
                out_dtype=out_dtype,
                stages=stages or {},
                where=f"{where}.routes",
            )
        )
    else:
        space = ParameterSpace(
            lay_out(
                written,
                base=base,
                sources=sources,
                structure=structure,
                out_dtype=out_dtype,
                seed=seed,
                statistics=statistics,
                stages=stages or {},
                where=where,
            )
        )
    if written.start_from is None:
        return space
    return space.starting_from(written.start_from, where=f"{where}.start_from")


def check_space(document: Mapping[str, Any], *, where: str) -> SpaceSpec | DataFlowSpec:
    """The mapping of a space as a typed value; `where` names it in messages. Raises JobError."""
    if "routes" in document and "method" not in document:
        return check_sections(DataFlowSpec, document, where=f"{where}.")
    return check_sections(SpaceSpec, document, where=f"{where}.")
