"""From a recipe to a genome of the same merge: the inverse of decoding.

A recipe of the space's own method is read parameter by parameter; any other recipe is read as
shares of the models. Both ways give the value that each tensor must get. The genes follow from
these by least squares; the fit must be exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from evomerge.recipe import Recipe, RecipeModel, resolve
from evomerge.space.base import Gene
from evomerge.space.document import own_reference
from evomerge.space.parameters.layout import Layout
from evomerge.space.parameters.methods import (
    TOLERANCE,
    Inexpressible,
    Values,
    Wanted,
    numbers_of,
    rule_of,
    same_choice,
    switch_of,
)
from evomerge.space.parameters.specification import Searched
from evomerge.space.parameters.tracks import ParameterTracks

# Merges as shares: every tensor of the result is a weighted sum of the models' tensors.
#
# The weights of a tensor, with the base's, add up to 1. Averages, task arithmetic and single models
# are such sums, so each can be written as another where the numbers allow it. A method that drops
# elements or elects signs is such a sum only where a single model is left.


Shares = Mapping[str, Values]
"""model -> its share of each tensor; the shares of a tensor add up to 1."""


def shares_of(layout: Layout, recipe: Recipe) -> Shares | Inexpressible:
    """A recipe as shares of the space's models, or the reason why it has none."""
    method = recipe.merge_method
    if method not in ("linear", "task_arithmetic", "dare_linear"):
        return Inexpressible(f"{method} is not this space's method and not a weighted sum")
    rules = rule_of(method).parameters
    normalize = switch_of(recipe, "normalize", rules["normalize"])
    weights: dict[str, Values] = {}
    for model in dict.fromkeys((layout.base, *layout.models)):
        if rule_of(method).family == "task_vector" and model == recipe.base_model:
            continue
        values = numbers_of(layout.components, recipe, "weight", rules["weight"], model)
        if values is None:
            return Inexpressible("it gives no weight that is a number for every tensor")
        weights[model] = values
    total = np.sum(list(weights.values()), axis=0)
    if method == "linear":
        return _average(layout, recipe, weights, total, bool(normalize))
    if recipe.base_model != layout.base:
        return Inexpressible(f"its base_model is {recipe.base_model}, not {layout.base}")
    if method == "dare_linear":
        for model, values in weights.items():
            density = numbers_of(layout.components, recipe, "density", rules["density"], model)
            if density is None or (density[values != 0.0] < 1.0).any():
                return Inexpressible("it drops elements, so it is not a weighted sum")
    scale = numbers_of(layout.components, recipe, "lambda", rules["lambda"], None)
    if scale is None:
        return Inexpressible("it gives no lambda that is a number for every tensor")
    if normalize:
        scale = scale / np.where(np.abs(total) < 1e-8, 1.0, total)
    shares = {model: scale * values for model, values in weights.items()}
    return {**shares, layout.base: 1.0 - np.sum(list(shares.values()), axis=0)}


def from_shares(layout: Layout, shares: Shares) -> Wanted | Inexpressible:
    """The same sum, as values for the space's own method."""
    family, sums = layout.rule.family, layout.rule.sums
    if sums == "none":
        return Inexpressible(f"{layout.spec.method} is not a weighted sum of models")
    merged_models = set(layout.models) | ({layout.base} if family == "task_vector" else set())
    for model, values in shares.items():
        if model not in merged_models and (np.abs(values) > TOLERANCE).any():
            return Inexpressible(f"it has a share of {model}, which this space does not merge")
    stacked = np.array([shares[model] for model in layout.models])
    distances = np.minimum(np.abs(stacked), np.abs(stacked - 1.0))
    if sums == "single" and (distances > TOLERANCE).any():
        return Inexpressible(f"{layout.spec.method} is a weighted sum only for one model alone")
    if family == "average":
        if sums == "single":
            stacked = np.round(stacked)
        weights = dict(zip(layout.models, stacked, strict=True))
        return Wanted(
            numbers={("weight", model): values for model, values in weights.items()}, switches={}
        )
    if family == "two_models":
        return Wanted(numbers={("t", None): np.round(shares[layout.models[1]])}, switches={})
    return _task_vector(layout, shares)


def _average(
    layout: Layout, recipe: Recipe, weights: Shares, total: Values, normalize: bool
) -> Shares | Inexpressible:
    if recipe.base_model and all(entry.model != recipe.base_model for entry in recipe.models):
        return Inexpressible("its base_model has no weight")
    if normalize:
        if (np.abs(total) < 1e-8).any():
            return Inexpressible("its weights add up to 0")
        return {model: values / total for model, values in weights.items()}
    if (np.abs(total - 1.0) > TOLERANCE).any():
        return Inexpressible("its weights do not add up to 1")
    return weights


def _task_vector(layout: Layout, shares: Shares) -> Wanted | Inexpressible:
    parameters, rules = layout.spec.parameters, layout.rule.parameters
    scale = parameters.get("lambda", rules["lambda"].default)
    if isinstance(scale, Searched):
        scale = min(max(1.0, scale.low), scale.high)
    assert isinstance(scale, float)
    if scale == 0.0:
        return Inexpressible("lambda is 0 in this space")
    weights = {model: shares[model] / scale for model in layout.models}
    weights = {
        model: np.where(np.abs(values) <= TOLERANCE, 0.0, values)
        for model, values in weights.items()
    }
    stacked = np.array(list(weights.values()))
    if layout.rule.sums == "elected" and (np.count_nonzero(stacked, axis=0) > 1).any():
        return Inexpressible(f"{layout.spec.method} elects signs, so it is not a weighted sum")
    total = stacked.sum(axis=0)
    normalize = parameters.get("normalize", rules["normalize"].default)
    if normalize and (stacked.any(axis=0) & (np.abs(total - 1.0) > TOLERANCE)).any():
        return Inexpressible("this space divides by the sum of the weights, which is not 1")
    numbers: dict[tuple[str, str | None], Values] = {("lambda", None): np.full(total.size, scale)}
    for model, values in weights.items():
        numbers["weight", model] = values
        if "density" in rules:
            numbers["density", model] = np.where(values == 0.0, np.nan, 1.0)
    return Wanted(numbers=numbers, switches={})


def express(layout: Layout, recipe: Recipe) -> NDArray[np.float64] | Inexpressible:
    """The genome, (n,) in [0, 1], of the same merge in a space, or the reason why there is none."""
    if any(layout.stages.get(name) != stage for name, stage in recipe.stages.items()):
        return Inexpressible("it is made of other stages than this space's")
    known = (layout.base, *layout.models)
    recipe = _with_own_references(recipe, known)
    unknown_model = next((model for model in recipe.references if model not in known), None)
    if unknown_model is not None:
        return Inexpressible(f"it reads {unknown_model}, which is not a model of this space")
    direct: NDArray[np.float64] | Inexpressible | None = None
    if recipe.merge_method == layout.spec.method:
        read = _read(layout, recipe)
        direct = read if isinstance(read, Inexpressible) else _solve(layout, read)
        if not isinstance(direct, Inexpressible):
            return direct
    shares = shares_of(layout, recipe)
    if isinstance(shares, Inexpressible):
        return direct or shares
    wanted = from_shares(layout, shares)
    indirect = wanted if isinstance(wanted, Inexpressible) else _solve(layout, wanted)
    return direct if direct and isinstance(indirect, Inexpressible) else indirect


def _with_own_references(recipe: Recipe, known: tuple[str, ...]) -> Recipe:
    """The recipe with the space's references: one local folder can be written in many ways."""
    models = tuple(
        RecipeModel(model=own_reference(entry.model, known), parameters=entry.parameters)
        for entry in recipe.models
    )
    base = own_reference(recipe.base_model, known) if recipe.base_model else None
    return recipe.model_copy(update={"models": models, "base_model": base})


def _read(layout: Layout, recipe: Recipe) -> Wanted | Inexpressible:
    """The values that a recipe of the space's own method gives."""
    if recipe.slices or recipe.modules:
        return Inexpressible("it is made of slices or modules, not of whole models")
    if recipe.base_model != layout.base_model:
        return Inexpressible(f"its base_model is {recipe.base_model}, not {layout.base_model}")
    statistics = recipe.evomerge.get("statistics")
    if layout.rule.calibrated and statistics != layout.statistics:
        return Inexpressible(f"its statistics are {statistics}, not {layout.statistics}")
    listed = {entry.model for entry in recipe.models}
    if layout.rule.family != "task_vector" and listed - set(layout.models):
        return Inexpressible(f"it merges {layout.base}, which this space does not")
    if layout.rule.family == "two_models" and listed | {layout.base_model} != set(layout.models):
        return Inexpressible(f"it does not merge {' with '.join(layout.models)}")
    rules = layout.rule.parameters
    numbers: dict[tuple[str, str | None], Values] = {}
    switches: dict[str, bool | str] = {}
    for name, rule in rules.items():
        if rule.choices:
            switch = switch_of(recipe, name, rule)
            if switch is None:
                return Inexpressible(f"its {name} is not one value for the whole merge")
            switches[name] = switch
            continue
        for model in layout.models if rule.scope == "model" else (None,):
            values = numbers_of(layout.components, recipe, name, rule, model)
            if values is None:
                return Inexpressible(f"it gives no {name} that is a number for every tensor")
            numbers[name, model] = values
    if "density" not in rules:
        return Wanted(numbers=numbers, switches=switches)
    masked = False
    for model in layout.models:
        unused = numbers["weight", model] == 0.0
        masked = masked or bool((numbers["density", model][~unused] < 1.0).any())
        numbers["density", model] = np.where(unused, np.nan, numbers["density", model])
    if not masked:
        switches.pop("rescale")
    elif layout.rule.random and recipe.seed != layout.seed:
        return Inexpressible(f"its mask seed is {recipe.seed}, the space's is {layout.seed}")
    return Wanted(numbers=numbers, switches=switches)


def _solve(layout: Layout, wanted: Wanted) -> NDArray[np.float64] | Inexpressible:
    """The genome that gives every tensor its wanted value, or the reason why there is none."""
    parameters = layout.spec.parameters
    for name, rule in layout.rule.parameters.items():
        fixed = parameters.get(name, rule.default)
        if isinstance(fixed, Searched):
            continue
        assert fixed is not None
        if rule.choices:
            if name in wanted.switches and not same_choice(wanted.switches[name], fixed):
                return Inexpressible(f"its {name} is {wanted.switches[name]}, not {fixed}")
            continue
        for (parameter, _model), values in wanted.numbers.items():
            if parameter == name and not _close(values, float(fixed)):
                return Inexpressible(f"its {name} is not {fixed:g} everywhere")
    genome = np.array([gene.position(gene.start) for gene in layout.genes])
    for tracks in layout.tracks:
        problem = _fit(layout, tracks, wanted, genome)
        if problem is not None:
            return problem
    if not _keeps_zeros(layout, wanted, genome):
        return Inexpressible("a weight of 0 is not exactly 0 in this space")
    return genome


def _fit(
    layout: Layout, tracks: ParameterTracks, wanted: Wanted, genome: NDArray[np.float64]
) -> Inexpressible | None:
    """Write the genes of one parameter and model into `genome`, (n,); a reason if none fits."""
    if not tracks.tracks:
        return None
    columns = slice(tracks.tracks[0].first, tracks.tracks[0].first + tracks.count)
    genes = layout.genes[columns]
    bindings = [
        values
        for (parameter, model), values in wanted.numbers.items()
        if parameter == tracks.parameter and tracks.source in (None, model)
    ]
    if not bindings:  # the merge does not depend on this parameter
        return None
    all_values = np.concatenate(bindings)
    matrix, constant = tracks.intended(layout.components)
    copies = all_values.size // constant.size
    matrix, constant = np.tile(matrix, (copies, 1)), np.tile(constant, copies)
    bound = ~np.isnan(all_values)
    values = _least_squares(matrix[bound], (all_values - constant)[bound], genes)
    if not _close((matrix @ values + constant - all_values)[bound], 0.0):
        return Inexpressible(f"its {tracks.parameter} varies where this space has one gene")
    for index, (gene, solved) in enumerate(zip(genes, values, strict=True)):
        value = _as_written(float(solved), all_values[bound])
        position = gene.position(value)
        if not -TOLERANCE <= position <= 1.0 + TOLERANCE:
            return Inexpressible(
                f"{gene.name} would be {value:g}, outside [{gene.low:g}, {gene.high:g}]"
            )
        genome[columns.start + index] = min(max(position, 0.0), 1.0)
    return None


def _least_squares(matrix: Values, target: Values, genes: Sequence[Gene]) -> Values:
    """Gene values, (n,), with matrix @ values nearest to target; the start where they are free."""
    start = np.array([gene.start for gene in genes])
    change, _, rank, _ = np.linalg.lstsq(matrix, target - matrix @ start, rcond=None)
    values: Values = start + change
    low, high = np.array([gene.low for gene in genes]), np.array([gene.high for gene in genes])
    if rank < len(genes) and ((values < low) | (values > high)).any():
        # Too few layers determine the knots; any of their values inside the box will do.
        return np.asarray(lsq_linear(matrix, target, bounds=(low, high), method="bvls").x)
    return values


def _as_written(value: float, written: Values) -> float:
    """A solved value without the solver's rounding: the nearest written value if close enough."""
    if written.size == 0:
        return value
    nearest = float(written[np.abs(written - value).argmin()])
    return nearest if abs(nearest - value) <= TOLERANCE else value


def _keeps_zeros(layout: Layout, wanted: Wanted, genome: NDArray[np.float64]) -> bool:
    """Whether weights that must be 0 are exactly 0, where this matters.

    A sign election divides by the weights that agree, so a weight of 1e-17 counts in full where
    all others are 0.
    """
    normalize = layout.spec.parameters.get("normalize")
    if normalize is None and "normalize" in layout.rule.parameters:
        normalize = layout.rule.parameters["normalize"].default
    if layout.rule.sums != "elected" or not normalize:
        return True
    settings = layout.settings(
        [gene.value(float(position)) for gene, position in zip(layout.genes, genome, strict=True)]
    )
    for (parameter, model), values in wanted.numbers.items():
        setting = settings.get((parameter, model), settings.get((parameter, None)))
        if parameter != "weight" or setting is None:
            continue
        depths = layout.components.depths
        for (tensor_name, depth), value in zip(depths.items(), values, strict=True):
            if value == 0.0 and resolve(setting, tensor_name=tensor_name, depth=depth) != 0.0:
                return False
    return True


def _close(values: Values, wanted: float) -> bool:
    """Whether all values that have an effect are `wanted`."""
    bound = values[~np.isnan(values)]
    return bool((np.abs(bound - wanted) <= TOLERANCE).all())
