"""A merge of mergekit, or a recipe, as the start of a search.

The search space has the merge's own method. It is the coarsest that can express the merge exactly:
what is the same for all layers in the file is one number in the search too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import yaml

from evomerge.conversion.document import ConvertedJob
from evomerge.conversion.evolve import tokenizer_of
from evomerge.conversion.whole_models import as_route, as_whole_models
from evomerge.errors import EvomergeError, JobError, RecipeError
from evomerge.merge import check_recipe
from evomerge.recipe import Condition, DType, Recipe, Setting
from evomerge.sources import Structure, open_source
from evomerge.space import build_space, rule_of

_SHARE = 1.5
"""How much wider than the merge's own values a range becomes, where the usual one is too narrow."""


def convert_merge(recipe: Recipe, *, base: str | None, where: str) -> ConvertedJob:
    """The job that starts at a merge. Raises InputError in one line.

    base: of the job; None for the file's own, or else its first model.
    """
    if recipe.stages:
        raise JobError(f"{where}: is made of several merges; name a file of one merge")
    if recipe.modules:
        raise JobError(f"{where}: modules: a search merges whole models; give models or slices")
    notes: list[str] = []
    routed = recipe.merge_method == "passthrough"
    references = list(recipe.references)
    if not routed and not rule_of_method(recipe.merge_method, where).searchable:
        raise JobError(
            f"{where}: merge_method: {recipe.merge_method} has no number to search; run it with "
            "`evomerge merge`, or search another method with `evomerge init`"
        )
    structures = {
        name: open_source(name, where=where).structure
        for name in (*references, *filter(None, [base]))
    }
    structure = structures[references[0]]
    try:
        check_recipe(recipe, structures)
    except RecipeError as error:
        raise JobError(f"{where}: {error}") from error
    start = (
        as_route(recipe, notes, where=where)
        if routed
        else as_whole_models(recipe, structure.depth, notes, where=where)
    )
    start = _without_the_rest(start, notes)
    base, sources = _models(start, routed, base, where)
    if base not in start.references:
        notes.append(f"models.base: {base}, which has no part in the merge of the file")
    dtype: DType = recipe.out_dtype or structure.dtype
    seed = recipe.seed
    spaces = _routes(references) if routed else _spaces(start, structure)
    space = _first_that_fits(
        spaces, start, base, sources, structure, dtype=dtype, seed=seed, notes=notes, where=where
    )
    models: dict[str, Any] = {"base": base, "sources": sources}
    models.update(tokenizer_of(recipe.tokenizer_source, base, sources, notes))
    if recipe.tokenizer is not None:
        source = recipe.tokenizer.source
        models.update(tokenizer_of(str(source), base, sources, notes))
        if recipe.tokenizer.tokens:
            notes.append("tokenizer.tokens: a job has no settings for single tokens")
    if recipe.chat_template is not None:
        notes.append("chat_template: a job takes the tokenizer's own")
    statistics = recipe.evomerge.get("statistics")
    if isinstance(statistics, str):
        models["statistics"] = statistics
    return ConvertedJob(
        models=models,
        space=space,
        compute={} if recipe.out_dtype is None else {"dtype": recipe.out_dtype},
        optimizer={"seed": seed} if seed else {},
        notes=tuple(notes),
    )


def rule_of_method(name: str, where: str) -> Any:
    """The rule of a method. Raises JobError if there is none of that name."""
    try:
        return rule_of(name)
    except KeyError as error:
        raise JobError(
            f"{where}: merge_method: {name}: no such method; see docs/methods.md"
        ) from error


def _models(recipe: Recipe, routed: bool, wanted: str | None, where: str) -> tuple[str, list[str]]:
    """The base and the sources of the job."""
    references = list(recipe.references)
    if wanted is not None and recipe.base_model not in (None, wanted):
        raise JobError(f"--base {wanted}: {where} names {recipe.base_model}; leave --base out")
    base = wanted or recipe.base_model or references[0]
    sources = [model for model in references if model != base]
    if not sources and not routed:
        raise JobError(f"{where}: models: only {base} is named; a search merges it with another")
    return base, sources or [base]


def _without_the_rest(recipe: Recipe, notes: list[str]) -> Recipe:
    """The recipe without what does not say which merge it is, and without unknown parameters."""
    plain = recipe.model_copy(
        update={"tokenizer_source": None, "tokenizer": None, "chat_template": None}
    )
    if recipe.merge_method == "passthrough":
        return plain
    known = rule_of(recipe.merge_method).parameters
    unknown = dict.fromkeys(
        name
        for settings in (recipe.parameters, *(entry.parameters for entry in recipe.models))
        for name in settings
        if name not in known
    )
    for name in unknown:
        effect = " (it only saves memory there)" if name == "int8_mask" else ""
        notes.append(f"parameters.{name}: {recipe.merge_method} has no such parameter here{effect}")
    models = tuple(
        entry.model_copy(update={"parameters": _known(entry.parameters, unknown)})
        for entry in recipe.models
    )
    return plain.model_copy(
        update={"models": models, "parameters": _known(recipe.parameters, unknown)}
    )


def _known(settings: Mapping[str, Setting], unknown: Mapping[str, None]) -> dict[str, Setting]:
    return {name: setting for name, setting in settings.items() if name not in unknown}


def _spaces(recipe: Recipe, structure: Structure) -> Iterator[dict[str, Any]]:
    """Search spaces of the recipe's method, the coarsest first."""
    written = list(_written(recipe))
    lengths = sorted({len(each) for _, setting in written for each in _gradients(setting)})
    knots = [{"knots": n} for n in lengths if 2 <= n < structure.depth]
    groups = [
        {"groups_of": size}
        for size in range(structure.depth - 1, 1, -1)
        if any(_steps(each, structure.depth, size) for _, s in written for each in _gradients(s))
    ]
    layers: list[Any] = ["all", *knots, *groups, "each"]
    split: list[Any] = ["all", ["attention", "mlp", "rest"]]
    parameters = _parameters(recipe, written)
    for depth, components, included in product(layers, split, (False, True)):
        yield {
            "method": recipe.merge_method,
            "layers": depth,
            "components": components,
            "parameters": parameters,
            **({"include_base": True} if included else {}),
        }


def _steps(gradient: Sequence[float], depth: int, size: int) -> bool:
    """Whether a gradient has one value for each group of so many layers."""
    groups = (set(gradient[first : first + size]) for first in range(0, depth, size))
    return len(gradient) == depth and all(len(values) == 1 for values in groups)


def _parameters(recipe: Recipe, written: Sequence[tuple[str, Setting]]) -> dict[str, Any]:
    """Ranges that contain the recipe's values; what is one number for all stays as it is."""
    rules = rule_of(recipe.merge_method).parameters
    found: dict[str, Any] = {}
    searched = [
        name for name, rule in rules.items() if rule.search is not None and name != "lambda"
    ]
    for name, rule in rules.items():
        settings = [setting for each, setting in written if each == name]
        numbers = [value for setting in settings for value in _numbers(setting)]
        fixed = rule.search is None or (name not in searched and len(set(numbers)) <= 1)
        if not settings and not (name == searched[0] if searched else False):
            continue
        if fixed:
            if settings and isinstance(settings[0], bool | int | float | str):
                found[name] = settings[0]
            continue
        assert rule.search is not None
        low, high = rule.search
        if numbers and min(numbers) < low and not (rule.low_is_open and min(numbers) <= rule.low):
            low = max(rule.low, min(numbers) * (_SHARE if min(numbers) < 0.0 else 1.0 / _SHARE))
        if numbers and max(numbers) > high:
            high = min(rule.high, max(numbers) * _SHARE)
        found[name] = {"low": low, "high": high}
    return found


def _written(recipe: Recipe) -> Iterator[tuple[str, Setting]]:
    for settings in (recipe.parameters, *(entry.parameters for entry in recipe.models)):
        yield from settings.items()


def _gradients(setting: Setting) -> Iterator[tuple[float, ...]]:
    if not isinstance(setting, tuple) or not setting:
        return
    for part in setting:
        if isinstance(part, Condition):
            yield from _gradients(part.value)
    if not isinstance(setting[0], Condition):
        yield tuple(float(value) for value in setting if not isinstance(value, Condition))


def _numbers(setting: Setting) -> Iterator[float]:
    if isinstance(setting, tuple):
        for part in setting:
            yield from _numbers(part.value if isinstance(part, Condition) else part)
    elif not isinstance(setting, str | bool):
        yield float(setting)


def _routes(models: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Spaces of routes through these models, the first with the fewest slots."""
    for repeats in range(1, 9):
        yield {"routes": {"repeats": repeats, "models": list(models)}}


def _first_that_fits(
    spaces: Iterator[dict[str, Any]],
    start: Recipe,
    base: str,
    sources: Sequence[str],
    structure: Structure,
    *,
    dtype: DType,
    seed: int,
    notes: list[str],
    where: str,
) -> dict[str, Any]:
    """The first space that can start at the merge; else the first that has its method at all."""

    def problem_of(space: Mapping[str, Any]) -> EvomergeError | None:
        try:
            build_space(
                space,
                base=base,
                sources=sources,
                structure=structure,
                out_dtype=dtype,
                seed=seed,
                statistics=start.evomerge.get("statistics"),
            )
        except EvomergeError as error:
            return error
        return None

    [document] = yaml.safe_load_all(start.to_yaml())
    usable: dict[str, Any] | None = None
    unusable: EvomergeError | None = None
    problem: EvomergeError | None = None
    for space in spaces:
        failed = problem_of(whole := {**space, "start_from": document})
        if failed is None:
            return whole
        without = problem_of(space)
        unusable = unusable or without
        if without is None:
            usable, problem = usable or space, failed
    if usable is None or "parameters" not in usable:
        mend = "" if start.base_model else "; name the model that they were tuned from with --base"
        raise JobError(f"{where}: no search can start at this merge ({problem or unusable}){mend}")
    notes.append(
        f"the merge itself is not the start: {problem}; the search starts at the mean of each of "
        "its numbers"
    )
    return {**usable, "parameters": _at_means(start, usable["parameters"])}


def _at_means(recipe: Recipe, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with the mean of the recipe's values as the start of each."""
    found = dict(parameters)
    for name, searched in parameters.items():
        if isinstance(searched, Mapping):
            numbers = [
                number
                for each, setting in _written(recipe)
                if each == name
                for number in _numbers(setting)
            ]
            if numbers:
                mean = sum(numbers) / len(numbers)
                start = min(max(mean, searched["low"]), searched["high"])
                found[name] = {**searched, "start": start}
    return found
