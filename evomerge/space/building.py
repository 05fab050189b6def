"""From what a job says of its space, and its models, to the space itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from evomerge.errors import JobError, RecipeError
from evomerge.recipe import DType, read_recipe
from evomerge.sources import Structure
from evomerge.space.base import SearchSpace
from evomerge.space.layout import lay_out
from evomerge.space.parameter_space import ParameterSpace
from evomerge.space.reading import find_space, read_space
from evomerge.space.specification import parse_space


def build_space(
    spec: str | Mapping[str, Any],
    *,
    base: str,
    sources: Sequence[str],
    structure: Structure,
    out_dtype: DType,
    seed: int,
    statistics: str | None = None,
) -> SearchSpace:
    """The search space of a job.

    spec: a name in search_spaces/, a path, or a mapping (see specification.py for its keys).
    base, sources: references as the recipes are to write them. out_dtype: storage dtype of every
    recipe. seed: of every random mask, one for the whole search, so that a genome is always the
    same model. statistics: folder of those of base and sources, which some methods need. Raises
    JobError in one line.
    """
    where = str(find_space(spec)) if isinstance(spec, str) else "search_space"
    parsed = parse_space(read_space(spec), where=where)
    layout = lay_out(
        parsed,
        base=base,
        sources=sources,
        structure=structure,
        out_dtype=out_dtype,
        seed=seed,
        statistics=statistics,
    )
    space = ParameterSpace(layout)
    if parsed.start_from is None:
        return space
    place = f"{where}.start_from"
    if not isinstance(parsed.start_from, Mapping):
        raise JobError(f"{place}: {parsed.start_from}: give the path of a recipe")
    try:
        recipe = read_recipe(yaml.safe_dump(dict(parsed.start_from)), where=place)
    except RecipeError as error:
        raise JobError(str(error)) from error
    return space.starting_from(recipe, where=place)
